"""Many callers at once for minutes: nobody waits for ever, answers are not mixed up, the memory stays flat.

Run it as `python -m benchmarks.soak` (10 minutes; `--seconds 120` for less). 32 callers share one engine of the demo
checkpoint: in threads and in asyncio, streaming and not, through the engine and through both frameworks' classes, with
tools, schemas and stop texts. A third of the streams are left early. Every answer is compared with that of the same
request alone (greedy); what a stream that was left had given must be the beginning of it. The order in which requests
are begun is compared with that of their arrival. It ends at once, with all stacks, where no request ends for a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import threading
import time
from contextlib import aclosing, closing
from typing import Any

import minicpm_core
from benchmarks.soak_cases import begins, make_cases, text_of
from benchmarks.soak_record import SILENCE, Record, die, watch, watched
from benchmarks.soak_ways import Way, make_ways
from benchmarks.tables import Bar, describe_machine, format_bars, format_table
from minicpm_core import Chunk, Engine

CALLERS = 32
GROWTH = 1.0
"""MiB per minute, after the first fifth of the run, that count as flat."""


class Callers:
    """The callers of one run.

    Args:
        engine: shared by all.
        record: filled by them.
        most: tokens of an answer at most.
        patience: asks, in seconds, for an answer; far more than it takes.
    """

    def __init__(self, engine: Engine, record: Record, most: int, patience: float = 600.0) -> None:
        self.engine, self.record = engine, record
        self.cases = make_cases(most)
        self.alone = [engine.generate(case.messages, **case.options) for case in self.cases]
        self.ways = make_ways(engine, most, patience)
        self.stop = threading.Event()

    def in_thread(self, caller: int) -> None:
        """Ask until told to stop."""
        drawn = random.Random(caller)
        while not self.stop.is_set():
            asked = self._draw(drawn, caller)
            began = time.monotonic()
            try:
                self._judge(caller, *asked, began, self._ask(*asked))
            except Exception as error:
                self._fail(asked, error)

    async def in_task(self, caller: int) -> None:
        """Do the same in asyncio."""
        drawn = random.Random(caller)
        while not self.stop.is_set():
            asked = self._draw(drawn, caller)
            began = time.monotonic()
            try:
                self._judge(caller, *asked, began, await self._aask(*asked))
            except Exception as error:
                self._fail(asked, error)

    def _draw(self, drawn: random.Random, caller: int) -> tuple[Way, int, int | None]:
        """Return a way to ask, a case, and after how many pieces the stream is left: 0 not at all, None no stream."""
        way = self.ways[caller % len(self.ways)]
        number = drawn.randrange(len(self.cases))
        while not way.takes(self.cases[number]):
            number = drawn.randrange(len(self.cases))
        return way, number, (None, 0, drawn.randint(1, 4))[drawn.randrange(3)]

    def _ask(self, way: Way, number: int, leave: int | None) -> tuple[Any, bool, float]:
        """Return what was got, whether it is whole, and when its first piece came."""
        case = self.cases[number]
        if leave is None:
            return way.answer(case), True, time.monotonic()
        got, first = way.nothing, 0.0
        with closing(way.stream(case)) as pieces:
            for count, piece in enumerate(pieces, start=1):
                first = first or time.monotonic()
                got = way.add(got, piece)
                if count == leave:
                    return got, False, first
        return got, True, first

    async def _aask(self, way: Way, number: int, leave: int | None) -> tuple[Any, bool, float]:
        case = self.cases[number]
        if leave is None:
            return await way.aanswer(case), True, time.monotonic()
        got, first, count = way.nothing, 0.0, 0
        async with aclosing(await way.astream(case)) as pieces:
            async for piece in pieces:
                first, count = first or time.monotonic(), count + 1
                got = way.add(got, piece)
                if count == leave:
                    return got, False, first
        return got, True, first

    def _judge(
        self, caller: int, way: Way, number: int, leave: int | None, began: float, answer: tuple[Any, bool, float]
    ) -> None:
        got, is_whole, first = answer
        alone, record = self.alone[number], self.record
        if isinstance(got, Chunk):
            right = text_of(got) == text_of(alone) if is_whole else begins(got, alone)
        else:
            right = got == alone.content if is_whole else alone.content.startswith(got)
        if not right:
            record.mixed_up.append(f"{way.name}, {self.cases[number]}: {got!r} instead of {alone!r}")
        kind = "whole" if leave is None else "streamed" if is_whole else "left early"
        record.kinds[f"{way.name}, {'threads' if caller % 2 else 'asyncio'}, {kind}"] += 1
        record.by_caller[caller] += 1
        record.waits.append(first - began)
        record.last_end = time.monotonic()

    def _fail(self, asked: tuple[Way, int, int | None], error: Exception) -> None:
        self.record.errors.append(f"{asked[0].name}, case {asked[1]}: {type(error).__name__}: {error}")
        self.record.last_end = time.monotonic()
        if len(self.record.errors) > 100:
            self.stop.set()


def run(seconds: float, *, callers: int = CALLERS, most: int = 24, seed: int = 0) -> dict[str, Any]:
    """Run the callers for so many seconds and return what was measured."""
    random.seed(seed)
    record = Record()
    with minicpm_core.load("demo", max_waiting=callers) as engine:
        threads_before = threading.active_count()
        asked = Callers(engine, record, most)
        with watched(engine, record):
            record.last_end = time.monotonic()
            watcher = threading.Thread(target=watch, args=(record, asked.stop, seconds, die))
            began, used = time.monotonic(), time.process_time()
            watcher.start()
            threads = [threading.Thread(target=asked.in_thread, args=(n,)) for n in range(1, callers, 2)]
            for thread in threads:
                thread.start()

            async def tasks() -> None:
                await asyncio.gather(*(asked.in_task(n) for n in range(0, callers, 2)))

            asyncio.run(tasks())
            for thread in (*threads, watcher):
                thread.join(SILENCE)
            took, used = time.monotonic() - began, time.process_time() - used
        stuck = sum(thread.is_alive() for thread in threads)
        sound = text_of(engine.generate(asked.cases[0].messages, **asked.cases[0].options))
        is_idle = not engine._worker._jobs and engine._worker._running is None
        record.waits.sort()
        counts = [record.by_caller[n] for n in range(callers)]
        ways = [[counts[n] for n in range(way, callers, 3)] for way in range(3)]
        return {
            "seconds": took,
            "processor_seconds": used,
            "callers": callers,
            "answers": sum(record.kinds.values()),
            "kinds": dict(sorted(record.kinds.items())),
            "left_early": sum(n for kind, n in record.kinds.items() if kind.endswith("left early")),
            "mixed_up": len(record.mixed_up),
            "errors": len(record.errors),
            "examples": [*record.mixed_up[:3], *record.errors[:3]],
            "overtaken": record.overtaken(),
            "fewest_answers_of_a_caller": min(counts),
            "most_answers_of_a_caller": max(counts),
            "share_of_the_slowest": min(min(way) / max(sum(way) / len(way), 1e-9) for way in ways),
            "wait_median_s": record.waits[len(record.waits) // 2] if record.waits else 0.0,
            "wait_longest_s": record.waits[-1] if record.waits else 0.0,
            "memory_first_mib": record.memory[0][1],
            "memory_last_mib": record.memory[-1][1],
            "memory_peak_mib": max(size for _, size in record.memory),
            "growth_mib_per_minute": record.slope(),
            "samples": len(record.memory),
            "stuck_callers": stuck,
            "idle_at_the_end": is_idle and sound == text_of(asked.alone[0]),
            "threads_left": threading.active_count() - threads_before,
        }


def show(row: dict[str, Any]) -> tuple[str, list[Bar]]:
    """Return the tables, and the bars."""
    kinds = format_table(("answers", "number"), list(row["kinds"].items()))
    names = [
        "seconds", "processor_seconds", "answers", "left_early", "wait_median_s", "wait_longest_s",
        "fewest_answers_of_a_caller", "most_answers_of_a_caller", "memory_first_mib", "memory_last_mib",
        "memory_peak_mib", "growth_mib_per_minute",
    ]  # fmt: skip
    figures = format_table(("", "measured"), [(name.replace("_", " "), row[name]) for name in names])
    bars = [
        Bar("answers that differ from the lone run's", row["mixed_up"], 0, at_most=True),
        Bar("errors", row["errors"], 0, at_most=True),
        Bar("requests begun before an earlier one", row["overtaken"], 0, at_most=True),
        Bar("callers that did not come back", row["stuck_callers"], 0, at_most=True),
        Bar("memory, MiB per minute", row["growth_mib_per_minute"], GROWTH, at_most=True),
        Bar("share of streams and answers left early", row["left_early"] / max(row["answers"], 1), 0.2),
        Bar("answers of the slowest caller, of the mean of its kind", row["share_of_the_slowest"], 0.5),
    ]
    return f"{kinds}\n\n{figures}", bars


def main() -> int:
    """Run it; the exit code is 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--callers", type=int, default=CALLERS)
    parser.add_argument("--answer", type=int, default=24, help="tokens of an answer at most")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    row = run(options.seconds, callers=options.callers, most=options.answer)
    table, bars = show(row)
    if options.json:
        print(json.dumps(row, ensure_ascii=False))
    else:
        machine = "; ".join(f"{name} {value}" for name, value in describe_machine().items())
        print(f"{table}\n\n{format_bars(bars)}\n\n{machine}")
        for example in row["examples"]:
            print(example)
    return int(not all(bar.met for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
