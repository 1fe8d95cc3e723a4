"""One thread that runs a model's requests in order of arrival, for callers in threads and in asyncio."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing
from queue import SimpleQueue
from typing import Any, TypeVar

from minicpm_core.errors import OutOfMemoryError, QueueFullError
from minicpm_core.handover import END, Failure, Stop, areceive, receive
from minicpm_core.threads import release_team

T = TypeVar("T")
Produce = Callable[[threading.Event], Iterator[T]]
"""Makes the items of one request; looks at the event between two steps and ends when it is set."""

MAX_WAITING = 128
"""Requests that may wait for their turn; what comes beyond that is refused at once."""
_LOST = "nor to tell where. The engine goes on; load it with a lower memory_limit, or ask for less at once"
_PAUSE = 0.05

_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


class _Job:
    def __init__(self, produce: Produce[Any], deliver: Callable[[Any], None], stop: Stop, name: str) -> None:
        self.produce = produce
        self.deliver = deliver
        self.stop = stop
        self.closed_text = f"the engine of {name} was closed before the answer was complete"
        # Made while there is memory, for when there is none to tell what happened.
        self.lost = Failure(OutOfMemoryError(f"the memory did not suffice for an answer of {name}; {_LOST}"))

    def run(self) -> Any:
        """Deliver the items; return what ends them."""
        self.stop.begun = True
        try:
            for item in self.produce(self.stop):
                if self.stop.is_set():
                    break
                self.deliver(item)
            # Who left the stream does not read on; who still does must not take a cut answer for a whole one.
            return self.cut() if self.stop.is_set() else END
        except BaseException as error:
            return Failure(error)
        finally:
            release_team()

    def end(self, *, closed: bool) -> Any:
        """Run unless it has to end already; return what ends the items, whatever fails on the way."""
        try:
            return self.cut() if closed or self.stop.is_set() else self.run()
        except BaseException:  # no memory for the error's own objects: a thread that ended here would never answer
            return self.lost

    def tell(self, end: Any) -> None:
        """Deliver what ends the items: the caller waits for it, for ever where nothing comes."""
        while not self.stop.is_set() or end is not self.lost:
            try:
                return self.deliver(end)
            except MemoryError:
                end = self.lost
                time.sleep(_PAUSE)

    def cut(self) -> Failure:
        """Return why the answer is not whole."""
        return Failure(self.stop.error() if self.stop.is_late else RuntimeError(self.closed_text))


class Worker:
    """Runs one request after another; the thread starts with the first and ends with `close`.

    Args:
        name: of the model.
        max_waiting: requests that may wait besides the one that runs; those that were left or are late do not count.
    """

    def __init__(self, name: str, max_waiting: int = MAX_WAITING) -> None:
        self._name = name
        self.max_waiting = max_waiting
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._running: _Job | None = None
        self._closed = False
        self._process = os.getpid()

    def stream(self, produce: Produce[T], stop: Stop | None = None) -> Generator[T, None, None]:
        """Yield the request's items as they are made; closing the iterator cancels the request.

        Args:
            produce: makes the items.
            stop: holds the time until the last item, the wait for its turn included; it is set at the end.

        Raises:
            QueueFullError: too many requests wait.
            AnswerTimeoutError: the time is over.
        """
        items: SimpleQueue[Any] = SimpleQueue()
        ends = stop or Stop()
        try:
            self._submit(_Job(produce, items.put, ends, self._name))
            yield from receive(items, ends)
        finally:
            ends.set()

    async def astream(self, produce: Produce[T], stop: Stop | None = None) -> AsyncGenerator[T, None]:
        """Do the same without blocking the event loop."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Any] = asyncio.Queue()
        ends = stop or Stop()

        def deliver(item: Any) -> None:
            try:
                loop.call_soon_threadsafe(items.put_nowait, item)
            except RuntimeError:  # the loop was closed, nobody waits any more
                ends.set()

        try:
            self._submit(_Job(produce, deliver, ends, self._name))
            async with aclosing(areceive(items, ends)) as received:
                async for item in received:
                    yield item
        finally:
            ends.set()

    def refuse_forked(self) -> None:
        """Raise RuntimeError in a process that was forked from the one with the thread."""
        if os.getpid() != self._process:
            raise RuntimeError(
                f"the engine of {self._name} was loaded before this process was forked, and its threads did not come "
                "along; load it in this process, or start processes with multiprocessing's 'spawn'"
            )

    def close(self) -> None:
        """Cancel what runs, refuse what waits, end the thread."""
        if os.getpid() != self._process:  # the thread is the other process's, and a lock may be held for ever
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            thread, running = self._thread, self._running
            self._changed.notify()
        if running:
            running.stop.set()
        if thread and thread is not threading.current_thread():
            thread.join(timeout=30)

    def _submit(self, job: _Job) -> None:
        self.refuse_forked()
        release_team()
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the engine of {self._name} is closed; load it again")
            if len(self._jobs) + (self._running is not None) > self.max_waiting:
                self._jobs = deque(job for job in self._jobs if not job.stop.is_set())
                if len(self._jobs) + (self._running is not None) > self.max_waiting:
                    raise QueueFullError(
                        f"{len(self._jobs)} requests wait for {self._name} already, and max_waiting is "
                        f"{self.max_waiting}; ask again later, or load with a larger max_waiting"
                    )
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name=f"minicpm {self._name}", daemon=True)
                thread.start()
                self._thread = thread
                _workers.add(self)
            self._jobs.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                try:
                    while not self._jobs and not self._closed:
                        self._changed.wait()
                except MemoryError:  # of its lock's; told here, since a thread that is about to end is still alive
                    self._thread = None
                    return
                if not self._jobs:
                    return
                job = self._running = self._jobs.popleft()
            end = job.end(closed=self._closed)
            self._running = None  # before the caller is told, who may ask again at once
            job.tell(end)
            del job, end


@atexit.register
def _close_all() -> None:
    for worker in list(_workers):
        worker.close()


def _compute_alone() -> None:
    """Let torch compute in one thread in a forked process: OpenMP's other threads did not come along, and it hangs."""
    torch = sys.modules.get("torch")
    if torch is not None and _workers:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compute_alone)
