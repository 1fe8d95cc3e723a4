"""The values that cross the engine's border: sampling, usage and chunks of an answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Literal

FinishReason = Literal["stop", "length", "tool_calls"]
Message = dict[str, Any]
"""A chat template's own dict: {"role": ..., "content": ...}."""
Prompt = str | Sequence[Message]
"""Chat messages, or a string that is completed as it stands (no chat template)."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; None leaves a value to the family's recommendation.

    Args:
        temperature: 0 is greedy decoding; accepted 0 to 10.
        top_p: nucleus size, above 0 to 1.
        top_k: tokens kept, 0 keeps all.
        repetition_penalty: above 0; 1 is off (Keskar et al. 2019, section 4.1).
        max_new_tokens: most tokens to generate; always cut to what is left of the context window.
        seed: makes sampling reproducible; None draws anew each time.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        checks: dict[str, tuple[type, Callable[[Any], bool], str]] = {
            "temperature": (Real, lambda v: 0 <= v <= 10, "0 to 10"),
            "top_p": (Real, lambda v: 0 < v <= 1, "above 0, up to 1"),
            "top_k": (Integral, lambda v: v >= 0, "0 (all tokens) or more"),
            "repetition_penalty": (Real, lambda v: v > 0, "above 0"),
            "max_new_tokens": (Integral, lambda v: v >= 1, "1 or more"),
            "seed": (Integral, lambda v: -(2**63) <= v < 2**64, "a whole number of 64 bits"),
        }
        for name, (kind, accepted, text) in checks.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, kind) and accepted(value)):
                raise ValueError(f"{name} is {value!r}; accepted: {text}")

    def over(self, defaults: Sampling) -> Sampling:
        """Return these values, with those of `defaults` where they are None."""
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(defaults, **given)


@dataclass(frozen=True)
class Usage:
    """Tokens of one call.

    Args:
        prompt_tokens: length of the prompt; cached_tokens of them were reused from an earlier call.
        completion_tokens: length of the answer; reasoning_tokens of them are reasoning, and forced_tokens of them were
            the only ones that a grammar allowed, so that they took no step of the model.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = field(default=0, compare=False)  # tells of the engine's past, not of the answer
    reasoning_tokens: int = 0
    forced_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def make_call_id() -> str:
    """Return a new id of a tool call."""
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model, or in a stream a piece of one; pieces with the same id add up.

    Args:
        id: unique, the same in all pieces.
        name: the tool's name, in the first piece.
        arguments: the arguments of a whole call, in the last piece; None where the text could not be read to its end.
        text: the arguments as JSON; in a stream the next fragment of it.
        error: why the call must not be executed: it was cut off, or its arguments do not follow the tool's schema.
        index: place among the answer's calls, from 0.
    """

    id: str
    name: str = ""
    arguments: dict[str, Any] | None = None
    text: str = ""
    error: str | None = None
    index: int = 0

    @property
    def is_valid(self) -> bool:
        """Whether the call is whole and follows its schema."""
        return self.arguments is not None and self.error is None

    def __add__(self, other: ToolCall) -> ToolCall:
        return replace(
            self,
            name=self.name or other.name,
            arguments=self.arguments if other.arguments is None else other.arguments,
            text=self.text + other.text,
            error=self.error or other.error,
        )


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was for the model itself, before temperature and grammar.

    Args:
        token: its text; pieces of a character are shown as the replacement character.
        id: its number in the vocabulary.
        logprob: natural logarithm of the probability.
        bytes: its bytes in UTF-8.
        top: the likeliest tokens in its place, as many as were asked for.
    """

    token: str
    id: int
    logprob: float
    bytes: bytes
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer; `+` adds pieces up to the whole. The last piece has finish_reason and usage."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = field(default=())
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprob, ...] = field(default=())

    def __add__(self, other: Chunk) -> Chunk:
        usage = self.usage + other.usage if self.usage and other.usage else self.usage or other.usage
        calls = {call.id: call for call in self.tool_calls}
        for call in other.tool_calls:
            calls[call.id] = calls[call.id] + call if call.id in calls else call
        return Chunk(
            self.content + other.content,
            self.reasoning + other.reasoning,
            tuple(calls.values()),
            other.finish_reason or self.finish_reason,
            usage,
            self.logprobs + other.logprobs,
        )

    def __bool__(self) -> bool:
        return self != Chunk()


class IncompleteOutputError(ValueError):
    """An answer that should follow a schema was cut off before it was whole; `text` is what there is of it."""

    def __init__(self, text: str) -> None:
        super().__init__(
            "the answer was cut off by max_tokens or the context window before its JSON was whole; allow more tokens "
            f"or ask for a smaller schema. The text so far: {text[:200]!r}"
        )
        self.text = text
