"""The engine's chunks -> LlamaIndex's responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
)

from llamaindex_minicpm.tools import to_blocks, to_deltas, to_kwargs
from minicpm_core.types import Chunk, TokenLogprob

R = TypeVar("R", ChatResponse, CompletionResponse)
LogProbs = list[list[LogProb]]


class Answer:
    """An answer in the making: takes the pieces, and returns each time the response so far."""

    def __init__(self, respond: Callable[..., Any], model: str) -> None:
        self._respond = respond
        self._model = model
        self._total = Chunk()
        self._logprobs: LogProbs = []

    def add(self, piece: Chunk) -> Any:
        """Return the answer so far, `piece` included."""
        self._total += piece
        self._logprobs = [*self._logprobs, *_to_logprobs(piece.logprobs)]
        return self._respond(self._total, model=self._model, piece=piece, logprobs=self._logprobs)


def to_chat_response(
    total: Chunk, *, model: str, piece: Chunk | None = None, logprobs: LogProbs | None = None
) -> ChatResponse:
    """Return the answer so far as a response.

    Args:
        total: the answer so far. Tool calls appear when they are whole and follow their schema.
        model: its name.
        piece: what came last, None when the answer is not streamed.
        logprobs: those of `total`, where they are made already.
    """
    blocks: list[Any] = []
    if total.reasoning:
        tokens = total.usage.reasoning_tokens if total.usage else None
        blocks.append(ThinkingBlock(content=total.reasoning, num_tokens=tokens))
    calls = to_blocks(total.tool_calls)
    if total.content or not calls:
        blocks.append(TextBlock(text=total.content))
    kwargs = to_kwargs(total.tool_calls)
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, blocks=[*blocks, *calls], additional_kwargs=kwargs),
        delta=None if piece is None else piece.content,
        additional_kwargs=_last(piece),
        raw=_raw(total, model),
        logprobs=(_to_logprobs(total.logprobs) if logprobs is None else logprobs) or None,
    )


def to_completion_response(
    total: Chunk, *, model: str, piece: Chunk | None = None, logprobs: LogProbs | None = None
) -> CompletionResponse:
    """Do the same for a completion; reasoning and tool calls stand in its additional_kwargs."""
    reasoning = {"reasoning": total.reasoning} if total.reasoning else {}
    return CompletionResponse(
        text=total.content,
        delta=None if piece is None else piece.content,
        additional_kwargs=reasoning | to_kwargs(total.tool_calls) | _last(piece),
        raw=_raw(total, model),
        logprobs=(_to_logprobs(total.logprobs) if logprobs is None else logprobs) or None,
    )


def _last(piece: Chunk | None) -> dict[str, Any]:
    """Return what came last besides text."""
    if piece is None:
        return {}
    thinking = {"thinking_delta": piece.reasoning} if piece.reasoning else {}
    return thinking | ({"tool_call_deltas": to_deltas(piece.tool_calls)} if piece.tool_calls else {})


def _to_logprobs(tokens: Iterable[TokenLogprob]) -> LogProbs:
    """Return for each token itself, then the likeliest others in its place."""
    return [
        [_to_logprob(token), *(_to_logprob(other) for other in token.top if other.id != token.id)] for token in tokens
    ]


def _to_logprob(token: TokenLogprob) -> LogProb:
    return LogProb(token=token.token, logprob=token.logprob, bytes=list(token.bytes))


def _raw(total: Chunk, model: str) -> dict[str, Any] | None:
    """Return the numbers of a finished answer, where token counters look for them."""
    if total.finish_reason is None or total.usage is None:
        return None
    usage = {
        "prompt_tokens": total.usage.prompt_tokens,
        "completion_tokens": total.usage.completion_tokens,
        "total_tokens": total.usage.total_tokens,
    }
    return {"model": model, "finish_reason": total.finish_reason, "usage": usage}
