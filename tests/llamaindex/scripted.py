"""An engine that says what it is told to, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

from minicpm_core.types import Chunk, Sampling, ToolCall, Usage


class ScriptedEngine:
    """Yields the pieces of one answer after the other; the last answer is repeated."""

    context_window = 4096
    checkpoint = SimpleNamespace(name="scripted")
    family = SimpleNamespace(sampling=Sampling(max_new_tokens=256))

    def __init__(self, *answers: list[Chunk]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Any, dict[str, Any]]] = []

    def _next(self, messages: Any, options: dict[str, Any]) -> list[Chunk]:
        self.asked.append((messages, options))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def stream(self, messages: Any, **options: Any) -> Iterator[Chunk]:
        chunks = self._next(messages, options)

        def run() -> Iterator[Chunk]:
            yield from chunks

        return run()

    def astream(self, messages: Any, **options: Any) -> AsyncIterator[Chunk]:
        chunks = self._next(messages, options)

        async def run() -> AsyncIterator[Chunk]:
            for chunk in chunks:
                yield chunk

        return run()

    def generate(self, messages: Any, **options: Any) -> Chunk:
        return sum(self.stream(messages, **options), Chunk())

    async def agenerate(self, messages: Any, **options: Any) -> Chunk:
        return self.generate(messages, **options)

    def count_tokens(self, messages: Any, **options: Any) -> int:
        self.asked.append((messages, options))
        return 7


def end(reason: str = "stop", **values: Any) -> Chunk:
    """Return the last chunk of an answer."""
    return Chunk(finish_reason=reason, usage=Usage(11, 5), **values)  # type: ignore[arg-type]


def pieces(call_id: str, name: str, arguments: dict[str, Any], index: int = 0, **last: Any) -> list[Chunk]:
    """Return the chunks of a call: name, fragments, arguments."""
    text = json.dumps(arguments, ensure_ascii=False)
    half = len(text) // 2
    calls = [
        ToolCall(call_id, name, index=index),
        ToolCall(call_id, text=text[:half], index=index),
        ToolCall(call_id, text=text[half:], index=index),
        ToolCall(call_id, index=index, **({"arguments": arguments} | last)),
    ]
    return [Chunk(tool_calls=(call,)) for call in calls]
