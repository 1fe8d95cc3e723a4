"""From a server's events to chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from minicpm_core.decoding import ReasoningSplitter
from minicpm_core.schemas import find_error
from minicpm_core.tools import Tool
from minicpm_core.types import Chunk, FinishReason, TokenLogprob, ToolCall, Usage, make_call_id

_REASONS: dict[str, FinishReason] = {"length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls"}


@dataclass
class _Call:
    """A call in the making."""

    id: str
    name: str = ""
    text: str = ""


class ServerAnswer:
    """Reads the events of one answer; reasoning comes apart, in a field of its own or between `<think>` tags."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._schemas = {tool.name: tool.parameters for tool in tools}
        self._reasoning = ReasoningSplitter()
        self._calls: dict[int, _Call] = {}
        self._usage: Usage | None = None
        self.finish: FinishReason | None = None

    def push(self, event: Any) -> Chunk:
        """Return what an event brings."""
        if event.usage is not None:
            self._usage = _usage(event.usage)
        chunk = Chunk()
        for choice in event.choices[:1]:
            if choice.finish_reason:
                self.finish = _REASONS.get(choice.finish_reason, "stop")
            delta = getattr(choice, "delta", None)
            text = choice.text if delta is None else delta.content
            thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None) or ""
            reasoning, content = self._reasoning.push(text or "")
            chunk += Chunk(content, thought + reasoning, logprobs=_logprobs(choice))
            for piece in getattr(delta, "tool_calls", None) or ():
                chunk += self._call(piece)
        return chunk

    def _call(self, piece: Any) -> Chunk:
        index = piece.index if piece.index is not None else len(self._calls)
        fresh = index not in self._calls
        call = self._calls.setdefault(index, _Call(piece.id or make_call_id()))
        function = piece.function
        name = (function.name or "") if function and fresh else ""
        text = (function.arguments or "") if function else ""
        call.name += name
        call.text += text
        return Chunk(tool_calls=(ToolCall(call.id, name, text=text, index=index),))

    def last(self) -> Chunk:
        """Return what was held back, whether the calls are whole, why the answer ended, and its tokens."""
        reasoning, content = self._reasoning.flush()
        chunk = Chunk(content, reasoning)
        valid = False
        for index, call in self._calls.items():
            ended = self._check(call, index)
            valid |= ended.is_valid
            chunk += Chunk(tool_calls=(ended,))
        finish = self.finish or "stop"
        if self._calls and finish != "length":
            finish = "tool_calls" if valid else "stop"
        return chunk + Chunk(finish_reason=finish, usage=self._usage)

    def _check(self, call: _Call, index: int) -> ToolCall:
        ended = ToolCall(call.id, index=index)
        try:
            arguments = json.loads(call.text or "{}")
        except ValueError:
            cut = "cut off before its end" if self.finish == "length" else "the arguments are no JSON"
            return replace(ended, error=cut)
        if not isinstance(arguments, dict):
            return replace(ended, error="the arguments are no JSON object")
        if call.name not in self._schemas:
            return replace(ended, arguments=arguments, error=f"there is no tool {call.name!r}")
        return replace(ended, arguments=arguments, error=find_error(self._schemas[call.name], arguments))


def _usage(given: Any) -> Usage:
    prompt, completion = given.prompt_tokens_details, given.completion_tokens_details
    return Usage(
        given.prompt_tokens,
        given.completion_tokens,
        (getattr(prompt, "cached_tokens", None) or 0) if prompt else 0,
        (getattr(completion, "reasoning_tokens", None) or 0) if completion else 0,
    )


def _logprobs(choice: Any) -> tuple[TokenLogprob, ...]:
    found = getattr(choice.logprobs, "content", None) if choice.logprobs else None
    return tuple(_logprob(one, tuple(_logprob(top) for top in one.top_logprobs or ())) for one in found or ())


def _logprob(given: Any, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    content = given.token.encode() if given.bytes is None else bytes(given.bytes)
    return TokenLogprob(given.token, -1, given.logprob, content, top)
