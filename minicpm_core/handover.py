"""Items from the thread that makes them to the caller who waits for them, in a thread or in asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

from minicpm_core.errors import AnswerTimeoutError

END = object()


class Failure:
    """An error that is raised where the item would have come."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Stop(threading.Event):
    """Tells the maker to end: set when the caller has left, and by itself when the time is over.

    Args:
        timeout: seconds from now, above 0; None for no limit.
    """

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__()
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
            raise ValueError(f"timeout is {timeout!r}; accepted: seconds above 0, or None")
        self.begun = False
        self._timeout = timeout
        self._ends = None if timeout is None else time.monotonic() + timeout

    @property
    def is_late(self) -> bool:
        """Whether the time is over."""
        return self._ends is not None and time.monotonic() > self._ends

    def is_set(self) -> bool:
        """Tell whether the maker has to end."""
        return super().is_set() or self.is_late

    def renewed(self) -> Stop:
        """Return another one with the same end, for the next part of the same work."""
        other = Stop()
        other._timeout, other._ends = self._timeout, self._ends
        return other

    def left(self) -> float | None:
        """Return the seconds that are left, None where there is no limit."""
        return None if self._ends is None else max(self._ends - time.monotonic(), 0.0)

    def error(self) -> AnswerTimeoutError:
        """Return what is raised when the time is over."""
        done = "the model was stopped" if self.begun else "it was still waiting for its turn, and has left the queue"
        return AnswerTimeoutError(f"the answer took longer than timeout={self._timeout:g} seconds; {done}")


def receive(items: queue.SimpleQueue[Any], stop: Stop) -> Generator[Any, None, None]:
    """Yield items up to END, within the time."""
    while True:
        try:
            item = items.get(timeout=stop.left())
        except queue.Empty:
            raise stop.error() from None
        if item is END:
            return
        yield _unpack(item)


async def areceive(items: asyncio.Queue[Any], stop: Stop) -> AsyncGenerator[Any, None]:
    """Do the same without blocking the event loop."""
    left, timer = stop.left(), None
    if left is not None:
        late = asyncio.get_running_loop()
        timer = late.call_later(left, lambda: items.put_nowait(Failure(stop.error())))
    try:
        while (item := await items.get()) is not END:
            yield _unpack(item)
    finally:
        if timer is not None:
            timer.cancel()


def _unpack(item: Any) -> Any:
    if isinstance(item, Failure):
        raise item.error
    return item
