"""What a question becomes before a model is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.schema import NodeWithScore

from minicpm_core.rag import CHARS_PER_TOKEN, detect_language


@dataclass(frozen=True)
class Prompt:
    """A question with the passages in their [n] order, the messages and the model's further arguments; or a refusal.

    `dropped` are the passages that the prompt has no room for: dicts of id, source and page.
    """

    question: str
    nodes: tuple[NodeWithScore, ...] = ()
    messages: tuple[ChatMessage, ...] = ()
    refusal: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Condense:
    """The text to search with; or the messages and arguments that ask a model for it, and what reads its answer."""

    query: str
    messages: tuple[ChatMessage, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    settle: Callable[[str], str] = str


def estimate_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return a cautious number of tokens for a model whose tokenizer is not known; pictures are not counted."""
    contents = [message["content"] for message in messages]
    parts = [part for content in contents for part in ([content] if isinstance(content, str) else content)]
    text = "\n".join(part if isinstance(part, str) else part.get("text", "") for part in parts)
    return int(len(text) / CHARS_PER_TOKEN[detect_language(text)])


def to_chat(messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """Return the messages as LlamaIndex's, their pictures as image blocks."""
    return tuple(ChatMessage(role=message["role"], content=_to_content(message["content"])) for message in messages)


def _to_content(content: str | Sequence[Mapping[str, Any]]) -> Any:
    if isinstance(content, str):
        return content
    return [
        TextBlock(text=part["text"])
        if part["type"] == "text"
        else ImageBlock(image=part["base64"].encode(), image_mimetype=part["mime_type"])
        for part in content
    ]
