"""What is seen of a run of `benchmarks.soak`: the queue's order, the callers' answers, the memory, and silence."""

from __future__ import annotations

import faulthandler
import itertools
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minicpm_core import Engine

SILENCE = 60.0
"""Seconds without the end of any request after which the run is taken for stuck."""


@dataclass
class Record:
    """What the callers saw."""

    kinds: Counter[str] = field(default_factory=Counter)
    by_caller: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)  # seconds to the first piece
    mixed_up: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    last_end: float = field(default_factory=time.monotonic)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MiB

    def overtaken(self) -> int:
        """Return how many requests were begun before one that had arrived earlier; those left while waiting aside."""
        begun = set(self.begun)
        expected = [number for number in self.arrived if number in begun]
        return sum(one != other for one, other in zip(expected, self.begun, strict=True))

    def slope(self) -> float:
        """Return the growth of the resident memory in MiB per minute, by least squares, without the first fifth."""
        points = self.memory[len(self.memory) // 5 :]
        if len(points) < 3:
            return 0.0
        x = sum(second for second, _ in points) / len(points)
        y = sum(size for _, size in points) / len(points)
        spread = sum((second - x) ** 2 for second, _ in points)
        return 60 * sum((second - x) * (size - y) for second, size in points) / spread


@contextmanager
def watched(engine: Engine, record: Record) -> Iterator[None]:
    """Note when requests arrive at the engine's queue and when they are begun."""
    worker, numbers = engine._worker, itertools.count()
    submit = worker._submit
    order = threading.Lock()

    def noted(job: Any) -> None:
        with order:  # number and place in the queue belong together
            number, produce = next(numbers), job.produce

            def run(stop: Any) -> Any:
                record.begun.append(number)
                return produce(stop)

            job.produce = run
            record.arrived.append(number)
            submit(job)

    worker._submit = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        del worker._submit  # type: ignore[method-assign]


def resident() -> float:
    """Return this process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def watch(record: Record, stop: threading.Event, seconds: float, on_silence: Callable[[], None]) -> None:
    """Sample the memory until the time is over; end the program where nothing ends any more."""
    began = time.monotonic()
    while (now := time.monotonic()) - began < seconds and not stop.is_set():
        record.memory.append((now - began, resident()))
        if now - record.last_end > SILENCE:
            on_silence()
        stop.wait(min(1.0, seconds / 20))
    stop.set()


def die() -> None:
    """Show all stacks and end."""
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.write(f"no request has ended for {SILENCE:.0f} s\n")
    sys.stderr.flush()
    os._exit(2)
