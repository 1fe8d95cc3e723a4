"""An event loop in a thread of its own: one HTTP client for callers in threads and in any asyncio loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from queue import SimpleQueue
from typing import Any, TypeVar

from minicpm_core.handover import END, Failure, Stop, areceive, receive

T = TypeVar("T")
Produce = Callable[[], AsyncIterator[T]]


class BackgroundLoop:
    """Runs coroutines; the thread starts with the first and ends with `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def stream(self, produce: Produce[T], timeout: float | None = None) -> Generator[T, None, None]:
        """Yield what `produce()` yields; closing the generator, and the end of the time, cancel it.

        Args:
            produce: makes the items.
            timeout: seconds until the last item.
        """
        items: SimpleQueue[Any] = SimpleQueue()
        stop, loop = Stop(timeout), self._started()
        stop.begun = True
        future = asyncio.run_coroutine_threadsafe(_pump(produce, items.put), loop)
        try:
            yield from receive(items, stop)
        finally:
            future.cancel()

    async def astream(self, produce: Produce[T], timeout: float | None = None) -> AsyncGenerator[T, None]:
        """Do the same without blocking the caller's event loop."""
        own, stop, loop = asyncio.get_running_loop(), Stop(timeout), self._started()
        stop.begun = True
        items: asyncio.Queue[Any] = asyncio.Queue()

        def deliver(item: Any) -> None:
            if not own.is_closed():
                own.call_soon_threadsafe(items.put_nowait, item)

        future = asyncio.run_coroutine_threadsafe(_pump(produce, deliver), loop)
        try:
            async with aclosing(areceive(items, stop)) as received:
                async for item in received:
                    yield item
        finally:
            future.cancel()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the coroutine of `work()` returns."""
        loop = self._started()
        return asyncio.run_coroutine_threadsafe(work(), loop).result()

    async def arun(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do the same without blocking the caller's event loop; when it is cancelled, so is the work."""
        loop = self._started()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))

    def close(self, finish: Callable[[], Awaitable[Any]] | None = None) -> None:
        """Cancel what runs, await `finish()` and end the thread; what is asked later is refused."""
        with self._lock:
            loop, self._loop, self._closed = self._loop, None, True
        if loop is None:
            return

        async def end() -> None:
            running = asyncio.all_tasks() - {asyncio.current_task()}
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if finish is not None:
                await finish()
            await asyncio.get_running_loop().shutdown_asyncgens()
            await asyncio.sleep(0.01)  # closed connections say so in the next turns of the loop

        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the engine of {self._name} is closed; load it again")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(self._loop,), name=f"minicpm {self._name}", daemon=True).start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _pump(produce: Produce[Any], deliver: Callable[[Any], None]) -> None:
    try:
        stream: Any = produce()
        async with aclosing(stream) as items:
            async for item in items:
                deliver(item)
        deliver(END)
    except asyncio.CancelledError:
        deliver(Failure(RuntimeError("the engine was closed before the answer was complete")))
    except BaseException as error:
        deliver(Failure(error))
