"""Streams that end the model's work when they are left, even while a tracer keeps the exception of leaving."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_sources: ContextVar[list[Any] | None] = ContextVar("minicpm_sources", default=None)


def opened(source: T) -> T:
    """Note a stream that the running method opened, and return it."""
    if (sources := _sources.get()) is not None:
        sources.append(source)
    return source


def closes_its_stream(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make the generator that `method` returns close the streams `opened` in it.

    LlamaIndex's callbacks wrap the stream and do not close it; garbage collection would, unless a handler keeps the
    GeneratorExit, whose traceback holds the stream.
    """

    def guard(observed: Any, sources: list[Any]) -> Any:
        def run() -> Generator[Any, None, None]:
            with closing(observed):
                try:
                    yield from observed
                finally:
                    for source in sources:
                        source.close()

        async def arun() -> AsyncGenerator[Any, None]:
            async with aclosing(observed):
                try:
                    async for item in observed:
                        yield item
                finally:
                    for source in sources:
                        await source.aclose()

        return arun() if hasattr(observed, "__aiter__") else run()

    @functools.wraps(method)
    def sync(self: Any, *args: Any, **kwargs: Any) -> Any:
        sources: list[Any] = []
        token = _sources.set(sources)
        try:
            return guard(method(self, *args, **kwargs), sources)
        finally:
            _sources.reset(token)

    @functools.wraps(method)
    async def asynchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
        sources: list[Any] = []
        token = _sources.set(sources)
        try:
            return guard(await method(self, *args, **kwargs), sources)
        finally:
            _sources.reset(token)

    return asynchronous if inspect.iscoroutinefunction(method) else sync
