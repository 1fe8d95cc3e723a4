"""LlamaIndex's messages -> the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from llamaindex_minicpm.tools import read_arguments
from minicpm_core.types import Message

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
        ValueError: a block of a kind that MiniCPM models do not take, or a tool call that cannot be read.
    """
    return [_to_message(message) for message in messages]


def _to_message(message: ChatMessage) -> Message:
    parts: list[dict[str, Any]] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            parts.append({"type": "text", "text": block.text})
        elif isinstance(block, ImageBlock):
            parts.append({"type": "image", "image": _read_picture(block), "mime_type": block.image_mimetype})
        elif isinstance(block, ThinkingBlock):
            reasoning.append(block.content or "")
        elif isinstance(block, ToolCallBlock):
            calls.append(_to_call(block.tool_call_id, block.tool_name, block.tool_kwargs))
        else:
            raise ValueError(
                f"a message holds a block of type {block.block_type!r}; accepted: text, image, thinking, tool_call"
            )
    calls += _more_calls(message.additional_kwargs, calls)
    only_text = all(part["type"] == "text" for part in parts)
    converted: Message = {
        "role": ROLES[message.role],
        "content": "\n".join(part["text"] for part in parts) if only_text else parts,
    }
    if any(reasoning):
        converted["reasoning_content"] = "\n".join(reasoning)
    if calls:
        converted["tool_calls"] = calls
    for name in ("tool_call_id", "name", "status"):
        if isinstance(message.additional_kwargs.get(name), str):
            converted[name] = message.additional_kwargs[name]
    if message.additional_kwargs.get("is_error"):
        converted["status"] = "error"
    return converted


def _read_picture(block: ImageBlock) -> Any:
    """Return bytes (the block keeps them as base64, or in an open file), a path, or the text of a URL."""
    if block.image is not None:
        return block.resolve_image().read()
    return block.path if block.path is not None else str(block.url)


def _more_calls(kwargs: dict[str, Any], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls of additional_kwargs that are not among the blocks: other models', and our invalid ones."""
    calls = [_read_call(call) for call in kwargs.get("tool_calls") or ()]
    invalid = kwargs.get("invalid_tool_calls") or ()
    calls += [_to_call(call.get("id"), call.get("name", ""), call.get("arguments", "")) for call in invalid]
    ids = {call["id"] for call in known if call["id"]}
    functions = [call["function"] for call in known]
    return [call for call in calls if (call["id"] not in ids if call["id"] else call["function"] not in functions)]


def _read_call(call: Any) -> dict[str, Any]:
    """Read a call in OpenAI's form, a dict or a pydantic model."""
    plain = call.model_dump() if hasattr(call, "model_dump") else call
    function = plain.get("function") if isinstance(plain, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        raise ValueError(
            f"tool call {call!r} cannot be read; accepted: "
            '{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}'
        )
    return _to_call(plain.get("id"), function["name"], function.get("arguments") or {})


def _to_call(call_id: str | None, name: str, arguments: dict[str, Any] | str) -> dict[str, Any]:
    """Return the chat template's form; arguments that are no JSON are shown to the model as they stand."""
    read = read_arguments(arguments)
    function = {"name": name, "arguments": arguments if read is None else read}
    return {"id": call_id, "type": "function", "function": function}
