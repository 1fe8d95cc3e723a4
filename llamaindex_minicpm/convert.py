"""LlamaIndex's messages and responses <-> the engine's messages and chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from minicpm_core.types import Chunk, Message, Usage

ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


def to_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return the engine's messages; those given stay as they are.

    Raises:
        ValueError: a block of a kind that MiniCPM models do not take.
    """
    return [_to_message(message) for message in messages]


def _to_message(message: ChatMessage) -> Message:
    parts: list[dict[str, Any]] = []
    reasoning: list[str] = []
    calls: list[Any] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            parts.append({"type": "text", "text": block.text})
        elif isinstance(block, ImageBlock):
            picture = block.image or block.path or block.url
            parts.append({"type": "image", "image": picture, "mime_type": block.image_mimetype})
        elif isinstance(block, ThinkingBlock):
            reasoning.append(block.content or "")
        elif isinstance(block, ToolCallBlock):
            calls.append(_to_tool_call(block.tool_call_id, block.tool_name, block.tool_kwargs))
        else:
            raise ValueError(
                f"a message holds a block of type {block.block_type!r}; accepted: text, image, thinking, tool_call"
            )
    calls = calls or [_read_tool_call(call) for call in message.additional_kwargs.get("tool_calls") or ()]
    only_text = all(part["type"] == "text" for part in parts)
    converted: Message = {
        "role": ROLES[message.role],
        "content": "\n".join(part["text"] for part in parts) if only_text else parts,
    }
    if any(reasoning):
        converted["reasoning_content"] = "\n".join(reasoning)
    if calls:
        converted["tool_calls"] = calls
    for name in ("tool_call_id", "name"):
        if isinstance(message.additional_kwargs.get(name), str):
            converted[name] = message.additional_kwargs[name]
    return converted


def _read_tool_call(call: Any) -> dict[str, Any]:
    """Read a call in OpenAI's form, a dict or a pydantic model."""
    plain = call.model_dump() if hasattr(call, "model_dump") else call
    function = plain.get("function") if isinstance(plain, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        raise ValueError(
            f"tool call {call!r} cannot be read; accepted: "
            '{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}'
        )
    return _to_tool_call(plain.get("id"), function["name"], function.get("arguments") or {})


def _to_tool_call(call_id: str | None, name: str, arguments: dict[str, Any] | str) -> dict[str, Any]:
    """Return the chat template's form, whose arguments are a dict wherever the text can be read."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            pass  # what a model wrote wrongly is shown to it as it stands
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def to_chat_response(total: Chunk, *, model: str, piece: Chunk | None = None) -> ChatResponse:
    """Return the answer so far as a response; `piece` is what came last, None when the answer is not streamed."""
    thinking = [ThinkingBlock(content=total.reasoning, num_tokens=_reasoning_tokens(total.usage))]
    blocks: list[Any] = [*(thinking if total.reasoning else ()), TextBlock(text=total.content)]
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks),
        delta=None if piece is None else piece.content,
        additional_kwargs={"thinking_delta": piece.reasoning} if piece is not None and piece.reasoning else {},
        raw=_raw(total, model),
    )


def to_completion_response(total: Chunk, *, model: str, piece: Chunk | None = None) -> CompletionResponse:
    """Do the same for a completion; its reasoning stands in `additional_kwargs["reasoning"]`."""
    kwargs = {"reasoning": total.reasoning} if total.reasoning else {}
    if piece is not None and piece.reasoning:
        kwargs["thinking_delta"] = piece.reasoning
    return CompletionResponse(
        text=total.content,
        delta=None if piece is None else piece.content,
        additional_kwargs=kwargs,
        raw=_raw(total, model),
    )


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


def _reasoning_tokens(usage: Usage | None) -> int | None:
    return usage.reasoning_tokens if usage else None
