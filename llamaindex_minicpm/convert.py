"""LlamaIndex's messages -> the engine's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.schema import Document, ImageNode

from llamaindex_minicpm.tools import read_arguments, read_calls
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
        elif isinstance(block, (ImageBlock, VideoBlock, DocumentBlock)):
            parts.append(_to_part(block))
        elif isinstance(block, ThinkingBlock):
            reasoning.append(block.content or "")
        elif isinstance(block, ToolCallBlock):
            calls.append(_to_call(block.tool_call_id, block.tool_name, block.tool_kwargs))
        else:
            raise ValueError(
                f"a message holds a block of type {block.block_type!r}; "
                "accepted: text, image, video, document, thinking, tool_call"
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


def show_pictures(messages: list[Message], pictures: Sequence[Any]) -> list[Message]:
    """Return the messages with pictures in front of the last one's text.

    Args:
        messages: the engine's, the last one of text only.
        pictures: ImageDocument, ImageNode, NodeWithScore, ImageBlock, or what `minicpm_core.images.read_image` takes.

    Raises:
        ValueError: a document or node without a picture.
    """
    *others, last = messages
    parts = [_to_picture(getattr(picture, "node", picture)) for picture in pictures]
    return [*others, {**last, "content": [*parts, {"type": "text", "text": last["content"]}]}]


def _to_picture(picture: Any) -> dict[str, Any]:
    if isinstance(picture, ImageBlock):
        return _to_part(picture)
    if not isinstance(picture, (ImageNode, Document)):
        return {"type": "image", "image": picture}
    found = [getattr(picture, name, None) for name in ("image", "image_path", "image_url")]
    keys = ("base64", "path", "url")
    given = {key: str(value) for key, value in zip(keys, found, strict=True) if value}
    if not given and picture.metadata.get("file_path"):
        given = {"path": str(picture.metadata["file_path"])}
    return {"type": "image", **dict(list(given.items())[:1])}


def _to_part(block: ImageBlock | VideoBlock | DocumentBlock) -> dict[str, Any]:
    """Return a part with bytes (the block keeps them as base64, or in an open file), a path, or the text of a URL."""
    kind: str
    read: Callable[[], Any]
    if isinstance(block, ImageBlock):
        kind, data, read, mime_type = "image", block.image, block.resolve_image, block.image_mimetype
    elif isinstance(block, VideoBlock):
        kind, data, read, mime_type = "video", block.video, block.resolve_video, block.video_mimetype
    else:
        kind, data, read, mime_type = "file", block.data, block.resolve_document, block.document_mimetype
    source: dict[str, Any]
    if data is not None:
        source = {"data": read().read()}
    else:
        source = {"path": block.path} if block.path else {"url": str(block.url)}
    fps = {"fps": block.fps} if isinstance(block, VideoBlock) and block.fps else {}
    return {"type": kind, "mime_type": mime_type, **source, **fps}


def _more_calls(kwargs: dict[str, Any], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls of additional_kwargs that are not among the blocks: other models', and our invalid ones."""
    calls = [_read_call(call) for call in read_calls(kwargs, "tool_calls")]
    invalid = read_calls(kwargs, "invalid_tool_calls")
    calls += [_to_call(call.get("id"), call.get("name", ""), call.get("arguments", "")) for call in invalid]
    ids = [call["id"] for call in known if call["id"]]
    functions = [call["function"] for call in known]
    return [call for call in calls if (call["id"] not in ids if call["id"] else call["function"] not in functions)]


def _read_call(call: dict[str, Any]) -> dict[str, Any]:
    """Read a call in OpenAI's form."""
    function = call.get("function")
    if not isinstance(function, dict) or "name" not in function:
        raise ValueError(
            f"tool call {call!r} cannot be read; accepted: "
            '{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}'
        )
    return _to_call(call.get("id"), function["name"], function.get("arguments") or {})


def _to_call(call_id: str | None, name: str, arguments: dict[str, Any] | str) -> dict[str, Any]:
    """Return the chat template's form; arguments that are no JSON are shown to the model as they stand."""
    read = read_arguments(arguments)
    function = {"name": name, "arguments": arguments if read is None else read}
    return {"id": call_id, "type": "function", "function": function}
