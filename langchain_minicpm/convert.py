"""LangChain messages -> the chat template's dicts; the engine's chunks -> LangChain's chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk

from minicpm_core.types import Chunk, Message, Usage

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
    (FunctionMessage, "tool"),
)
_ROLE_NAMES = {"human": "user", "ai": "assistant", "developer": "system", "function": "tool"}
_NOT_SHOWN = frozenset(
    "reasoning thinking redacted_thinking tool_use tool_call tool_call_chunk invalid_tool_call".split()
)
"""Blocks of an AI message that are not text of its answer; its tool calls stand in `tool_calls`."""


def to_template(messages: Sequence[BaseMessage]) -> list[Message]:
    """Return the messages as the chat template's dicts; the engine checks their roles and parts.

    Raises:
        TypeError: a message that is no turn of a conversation, such as RemoveMessage.
    """
    return [_to_dict(message) for message in messages]


def _to_dict(message: BaseMessage) -> Message:
    turn: Message = {"role": _role(message), "content": message.content}
    if message.name:
        turn["name"] = message.name
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = message.tool_call_id
    if isinstance(message, AIMessage):
        if isinstance(message.content, list):
            turn["content"] = [part for part in message.content if _kind(part) not in _NOT_SHOWN]
        if calls := _tool_calls(message):
            turn["tool_calls"] = calls
    return turn


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return _ROLE_NAMES.get(message.role, message.role)
    for message_class, role in _ROLES:
        if isinstance(message, message_class):
            return role
    accepted = ", ".join(message_class.__name__ for message_class, _ in _ROLES)
    raise TypeError(f"a {type(message).__name__} cannot be put into a prompt; accepted: {accepted}, ChatMessage")


def _tool_calls(message: AIMessage) -> list[dict[str, Any]]:
    calls = [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    if not calls and isinstance(message.content, list):
        parts = [part for part in message.content if isinstance(part, dict) and part.get("type") == "tool_use"]
        calls = [(part.get("id"), part["name"], part.get("input") or {}) for part in parts]
    return [{"id": id_, "type": "function", "function": {"name": name, "arguments": args}} for id_, name, args in calls]


def _kind(part: str | dict[str, Any]) -> str:
    return "text" if isinstance(part, str) else str(part.get("type"))


def to_usage(usage: Usage) -> UsageMetadata:
    """Return LangChain's names for the token counts."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
        output_token_details={"reasoning": usage.reasoning_tokens},
    )


def to_chat_chunk(chunk: Chunk, model: str) -> ChatGenerationChunk:
    """Return the chat class's form of a chunk; usage and metadata come with the last one only."""
    message = AIMessageChunk(content=chunk.content)
    if chunk.reasoning:
        message.additional_kwargs["reasoning_content"] = chunk.reasoning
    if chunk.finish_reason is None:
        return ChatGenerationChunk(message=message)
    message.chunk_position = "last"
    message.usage_metadata = to_usage(chunk.usage or Usage())
    message.response_metadata = {"model_name": model, "model_provider": "minicpm", "finish_reason": chunk.finish_reason}
    return ChatGenerationChunk(message=message, generation_info={"finish_reason": chunk.finish_reason})


def to_text_chunk(chunk: Chunk, model: str) -> GenerationChunk:
    """Return the completion class's form of a chunk; reasoning and the last one's facts are in generation_info."""
    info: dict[str, Any] = {"reasoning_content": chunk.reasoning} if chunk.reasoning else {}
    if chunk.finish_reason is not None:
        usage = to_usage(chunk.usage or Usage())
        info |= {"finish_reason": chunk.finish_reason, "model_name": model, "usage_metadata": usage}
    return GenerationChunk(text=chunk.content, generation_info=info or None)
