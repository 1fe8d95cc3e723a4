"""LangChain messages, of any provider -> the chat template's dicts."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from minicpm_core.images import is_picture, read_image
from minicpm_core.types import Message

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
    (FunctionMessage, "tool"),
)
_ROLE_NAMES = {"human": "user", "ai": "assistant", "developer": "system", "function": "tool"}
_CALLS = frozenset("tool_use tool_call tool_call_chunk invalid_tool_call function_call".split())
_NOT_SHOWN = _CALLS | frozenset("reasoning reasoning_content thinking redacted_thinking".split())
"""Blocks of an AI message that are not text of its answer; its calls stand in `tool_calls`."""


_USUAL_TYPES = {"image": "image/png", "file": "application/pdf", "video": "video/mp4"}
_BEGINNINGS = {
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "Qk": "image/bmp",
    "SUkq": "image/tiff",
    "TU0AK": "image/tiff",
    "iVBOR": "image/png",
    "JVBERi": "application/pdf",
}
"""By the first characters of base64."""


def to_template(messages: Sequence[BaseMessage]) -> list[Message]:
    """Return the messages as the chat template's dicts; the engine checks their roles and parts.

    A result without the name of its tool gets it from the call that it answers.

    Raises:
        TypeError: a message that is no turn of a conversation, such as RemoveMessage.
    """
    turns = [turn for message in messages for turn in _to_turns(message)]
    names = {call["id"]: call["function"]["name"] for turn in turns for call in turn.get("tool_calls", ())}
    for turn in turns:
        if turn["role"] == "tool" and "name" not in turn and names.get(turn.get("tool_call_id")):
            turn["name"] = names[turn["tool_call_id"]]
    return turns


def _to_turns(message: BaseMessage) -> list[Message]:
    turn: Message = {"role": _role(message), "content": _read_parts(message.content)}
    if message.name:
        turn["name"] = message.name
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = message.tool_call_id
        if message.status == "error":
            turn["status"] = "error"
    if isinstance(message, AIMessage):
        if isinstance(message.content, list):
            turn["content"] = [part for part in turn["content"] if _kind(part) not in _NOT_SHOWN]
        if calls := _tool_calls(message):
            turn["tool_calls"] = calls
    elif isinstance(message, HumanMessage) and isinstance(message.content, list):
        return _split_results(turn)
    return [turn]


def add_types(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the messages with a MIME type beside base64 that has none, without which LangChain raises an error."""
    return [
        message.model_copy(update={"content": [_add_type(part) for part in message.content]})
        if isinstance(message.content, list) and any(map(_lacks_type, message.content))
        else message
        for message in messages
    ]


def _lacks_type(part: Any) -> bool:
    is_encoded = isinstance(part, dict) and ("base64" in part or part.get("source_type") == "base64")
    return is_encoded and part.get("type") in _USUAL_TYPES and not part.get("mime_type")


def _add_type(part: Any) -> Any:
    if not _lacks_type(part):
        return part
    text = str(part.get("base64") or part.get("data")).lstrip()
    known = (mime_type for start, mime_type in _BEGINNINGS.items() if text.startswith(start))
    return {**part, "mime_type": next(known, _USUAL_TYPES[part["type"]])}


def to_portable(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the messages with pictures that are objects (PIL images, arrays) as PNG in base64.

    A cache's key is made of the messages' text, in which different objects may look the same.
    """
    return [
        message.model_copy(update={"content": [_to_portable(part) for part in message.content]})
        if isinstance(message.content, list)
        else message
        for message in messages
    ]


def _to_portable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_portable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_portable(one) for one in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if not is_picture(value) or isinstance(value, os.PathLike):
        return value
    stream = io.BytesIO()
    read_image(value).save(stream, "PNG", compress_level=1)
    return base64.b64encode(stream.getvalue()).decode()


def _split_results(turn: Message) -> list[Message]:
    """Return Anthropic's results of tools, which are parts of a user's turn, as turns of their own before it."""
    results = [part for part in turn["content"] if _kind(part) == "tool_result"]
    rest = [part for part in turn["content"] if _kind(part) != "tool_result"]
    turns = [
        {
            "role": "tool",
            "content": _read_parts(part.get("content") or ""),
            "tool_call_id": str(part.get("tool_use_id")),
        }
        | ({"status": "error"} if part.get("is_error") else {})
        for part in results
    ]
    return [*turns, {**turn, "content": rest}] if rest or not results else turns


def _read_parts(content: Any) -> Any:
    """Return a content with LangChain's and Google's own kinds of parts as those that the engine knows."""
    return [_read_part(part) for part in content] if isinstance(content, list) else content


def _read_part(part: Any) -> Any:
    kind = _kind(part)
    if kind == "text-plain" and part.get("text"):
        return {"type": "text", "text": part["text"]}
    if kind == "media":
        first = str(part.get("mime_type")).partition("/")[0]
        return {**part, "type": first if first in ("image", "video") else "file"}
    return part


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return _ROLE_NAMES.get(message.role, message.role)
    for message_class, role in _ROLES:
        if isinstance(message, message_class):
            return role
    accepted = ", ".join(message_class.__name__ for message_class, _ in _ROLES)
    raise TypeError(f"a {type(message).__name__} cannot be put into a prompt; accepted: {accepted}, ChatMessage")


def _tool_calls(message: AIMessage) -> list[dict[str, Any]]:
    """Return a message's calls, those that could not be executed too; LangChain's field wins over providers' forms."""
    calls: list[tuple[Any, Any, Any]] = [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    calls += [(call["id"], call["name"], call["args"]) for call in message.invalid_tool_calls]
    if not calls and isinstance(message.content, list):
        calls = [_read_block(part) for part in message.content if isinstance(part, dict) and _kind(part) in _CALLS]
    if not calls and (function := message.additional_kwargs.get("function_call")):
        calls = [_read_block(function)]
    return [
        {"id": id_, "type": "function", "function": {"name": name or "", "arguments": _read_arguments(arguments)}}
        for id_, name, arguments in calls
    ]


def _read_block(block: Any) -> tuple[Any, Any, Any]:
    if not isinstance(block, dict) or not isinstance(block.get("name"), str):
        raise ValueError(f"a tool call has a name; given {block!r:.200}")
    id_ = block.get("call_id") or block.get("id")
    return (
        None if id_ is None else str(id_),
        block["name"],
        block.get("input") or block.get("args") or block.get("arguments"),
    )


def _read_arguments(arguments: Any) -> dict[str, Any] | str:
    """Return arguments as a dict; as a string where they are no whole JSON object."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _kind(part: Any) -> str:
    return str(part.get("type")) if isinstance(part, dict) else "text"
