"""The values that cross the engine's border: sampling, usage and chunks of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
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
        checks: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
            "temperature": (self.temperature, lambda v: 0 <= v <= 10, "0 to 10"),
            "top_p": (self.top_p, lambda v: 0 < v <= 1, "above 0, up to 1"),
            "top_k": (self.top_k, lambda v: v >= 0, "0 (all tokens) or more"),
            "repetition_penalty": (self.repetition_penalty, lambda v: v > 0, "above 0"),
            "max_new_tokens": (self.max_new_tokens, lambda v: v >= 1, "1 or more"),
        }
        for name, (value, accepted, text) in checks.items():
            if value is not None and not accepted(value):
                raise ValueError(f"{name} is {value}; accepted: {text}")

    def over(self, defaults: Sampling) -> Sampling:
        """Return these values, with those of `defaults` where they are None."""
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(defaults, **given)


@dataclass(frozen=True)
class Usage:
    """Tokens of one call: the prompt's (of them, reused from a cache) and the answer's (of them, reasoning)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model; `arguments` is None and `error` says why where the text could not be read."""

    id: str
    name: str
    arguments: dict[str, Any] | None
    text: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer; `+` adds pieces up to the whole. The last piece has finish_reason and usage."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = field(default=())
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    def __add__(self, other: Chunk) -> Chunk:
        usage = self.usage + other.usage if self.usage and other.usage else self.usage or other.usage
        return Chunk(
            self.content + other.content,
            self.reasoning + other.reasoning,
            self.tool_calls + other.tool_calls,
            other.finish_reason or self.finish_reason,
            usage,
        )

    def __bool__(self) -> bool:
        return self != Chunk()
