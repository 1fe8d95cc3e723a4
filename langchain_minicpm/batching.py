"""Inputs of one batch meet before the model, which answers them side by side.

LangChain's `batch` invokes each input in a thread (or task) of its own, with its callbacks, cache and rate limit. So do
these functions; but what an input asks the model waits until the others have asked too, or have come to their end
without it, and is answered with theirs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from langchain_core.runnables.config import ContextThreadPoolExecutor

from minicpm_core.types import Chunk, Prompt

BATCH_SIZE = 8
"""Inputs that are answered together where `max_concurrency` does not say how many."""

T = TypeVar("T")


class Asked(NamedTuple):
    """What one input asks the model."""

    prompt: Prompt
    stop: list[str] | None
    options: dict[str, Any]


_seat: ContextVar[Seat | None] = ContextVar("_seat", default=None)


class Gathering:
    """Waits until every input of a batch has asked, or does without."""

    def __init__(self, owner: Any, size: int) -> None:
        self.owner = owner
        self.seats = [Seat(self) for _ in range(size)]
        self.complete: Future[None] = Future()
        self._away = size
        self._lock = threading.Lock()

    def count_in(self) -> None:
        """Note that one more input has asked or left."""
        with self._lock:
            self._away -= 1
            is_last = self._away == 0
        if is_last and not self.complete.cancelled():
            self.complete.set_result(None)

    @property
    def asked(self) -> list[Asked]:
        """What the inputs ask that need the model."""
        return [seat.asked for seat in self.seats if seat.asked is not None]

    def deliver(self, answers: Sequence[Chunk]) -> None:
        """Hand out the answers, in the order of `asked`."""
        seats = [seat for seat in self.seats if seat.asked is not None]
        for seat, answer in zip(seats, answers, strict=True):
            if not seat.answer.done():  # its task may have been cancelled
                seat.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Raise `error` where an answer is waited for."""
        for seat in self.seats:
            if not seat.answer.done():
                seat.answer.set_exception(error)


class Seat:
    """The place of one input in a gathering."""

    def __init__(self, gathering: Gathering) -> None:
        self.gathering = gathering
        self.asked: Asked | None = None
        self.answer: Future[Chunk] = Future()
        self._counted = False

    def ask(self, asked: Asked) -> Future[Chunk]:
        """Return what will be the answer, once the others have asked too."""
        self.asked = asked
        self.leave()
        return self.answer

    def leave(self) -> None:
        """Be waited for no longer."""
        if not self._counted:
            self._counted = True
            self.gathering.count_in()


def take_seat(owner: Any) -> Seat | None:
    """Return the place of this thread or task in a batch of `owner`, the first time that it is asked for."""
    seat = _seat.get()
    if seat is None or seat.gathering.owner is not owner:
        return None
    _seat.set(None)
    return seat


def run_batch(
    owner: Any, asks: Sequence[Callable[[], T]], answer: Callable[[list[Asked]], list[Chunk]]
) -> list[T | Exception]:
    """Call each of `asks` in a thread; what they ask of `owner` is answered together. Errors are returned.

    Args:
        owner: the chat model.
        asks: invoke the model with one input each.
        answer: answers all that was asked.
    """
    gathering = Gathering(owner, len(asks))

    def run(ask: Callable[[], T], seat: Seat) -> T | Exception:
        _seat.set(seat)
        try:
            return ask()
        except Exception as error:
            return error
        finally:
            seat.leave()

    with ContextThreadPoolExecutor(max_workers=len(asks)) as pool:
        futures = [pool.submit(run, ask, seat) for ask, seat in zip(asks, gathering.seats, strict=True)]
        try:
            gathering.complete.result()
            if gathering.asked:
                gathering.deliver(answer(gathering.asked))
        except Exception as error:
            gathering.fail(error)
        except BaseException as error:
            gathering.fail(error)
            raise
        return [future.result() for future in futures]


async def arun_batch(
    owner: Any, asks: Sequence[Callable[[], Awaitable[T]]], answer: Callable[[list[Asked]], Awaitable[list[Chunk]]]
) -> list[T | Exception]:
    """Do what `run_batch` does, in tasks."""
    gathering = Gathering(owner, len(asks))

    async def run(ask: Callable[[], Awaitable[T]], seat: Seat) -> T | Exception:
        _seat.set(seat)
        try:
            return await ask()
        except Exception as error:
            return error
        finally:
            seat.leave()

    tasks = [asyncio.create_task(run(ask, seat)) for ask, seat in zip(asks, gathering.seats, strict=True)]
    try:
        await asyncio.wrap_future(gathering.complete)
        if gathering.asked:
            gathering.deliver(await answer(gathering.asked))
    except Exception as error:
        gathering.fail(error)
    except BaseException as error:
        gathering.fail(error)
        for task in tasks:
            task.cancel()
        raise
    return await asyncio.gather(*tasks)
