"""One thread that runs a model's requests in order of arrival, for callers in threads and in asyncio."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Produce = Callable[[threading.Event], Iterator[T]]
"""Makes the items of one request; looks at the event between two steps and ends when it is set."""

_END = object()
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Job:
    def __init__(self, produce: Produce[Any], deliver: Callable[[Any], None], name: str) -> None:
        self.produce = produce
        self.deliver = deliver
        self.closed_text = f"the engine of {name} was closed before the answer was complete"
        self.cancelled = threading.Event()

    def run(self) -> None:
        try:
            for item in self.produce(self.cancelled):
                if self.cancelled.is_set():
                    break
                self.deliver(item)
            # Who left the stream does not read on; who still does must not take a cut answer for a whole one.
            self.deliver(_Failure(RuntimeError(self.closed_text)) if self.cancelled.is_set() else _END)
        except BaseException as error:
            self.deliver(_Failure(error))


class Worker:
    """Runs one request after another; the thread starts with the first and ends with `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: _Job | None = None
        self._closed = False

    def stream(self, produce: Produce[T]) -> Generator[T, None, None]:
        """Yield the request's items as they are made; closing the iterator cancels the request."""
        items: SimpleQueue[Any] = SimpleQueue()
        job = _Job(produce, items.put, self._name)
        self._submit(job)
        try:
            while (item := items.get()) is not _END:
                yield _item_or_raise(item)
        finally:
            job.cancelled.set()

    async def astream(self, produce: Produce[T]) -> AsyncGenerator[T, None]:
        """Do the same without blocking the event loop."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Any] = asyncio.Queue()

        def deliver(item: Any) -> None:
            try:
                loop.call_soon_threadsafe(items.put_nowait, item)
            except RuntimeError:  # the loop was closed, nobody waits any more
                job.cancelled.set()

        job = _Job(produce, deliver, self._name)
        self._submit(job)
        try:
            while (item := await items.get()) is not _END:
                yield _item_or_raise(item)
        finally:
            job.cancelled.set()

    def close(self) -> None:
        """Cancel what runs, refuse what waits, end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread, running = self._thread, self._running
        if running:
            running.cancelled.set()
        self._jobs.put(None)
        if thread and thread is not threading.current_thread():
            thread.join(timeout=30)

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the engine of {self._name} is closed; load it again")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"minicpm {self._name}", daemon=True)
                self._thread.start()
                _workers.add(self)
            self._jobs.put(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._running = job
            if self._closed:
                job.deliver(_Failure(RuntimeError(job.closed_text)))
            elif not job.cancelled.is_set():
                job.run()
            self._running = None
            del job


def _item_or_raise(item: Any) -> Any:
    if isinstance(item, _Failure):
        raise item.error
    return item


@atexit.register
def _close_all() -> None:
    for worker in list(_workers):
        worker.close()
