"""LlamaIndex's tools and calls <-> the engine's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool, FunctionTool

from minicpm_core.types import ToolCall


def to_tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the tools in OpenAI's form, under their own names.

    Args:
        tools: LlamaIndex tools, functions, pydantic classes, or dicts in the form of OpenAI or Anthropic.
    """
    return [_to_tool(tool) for tool in tools]


def _to_tool(tool: Any) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        return dict(tool)
    if isinstance(tool, type) and issubclass(tool, BaseModel):
        schema = tool.model_json_schema()
        name, description, parameters = tool.__name__, schema.pop("description", ""), schema
    elif isinstance(tool, BaseTool):  # to_openai_tool() would rename tools whose names are not ASCII
        metadata = tool.metadata
        name, description, parameters = metadata.get_name(), metadata.description, metadata.get_parameters_dict()
    elif callable(tool):
        return _to_tool(FunctionTool.from_defaults(tool))
    else:
        raise ValueError(f"{tool!r} is no tool; accepted: LlamaIndex tools, functions, pydantic classes, dicts")
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def to_blocks(calls: Iterable[ToolCall]) -> list[ToolCallBlock]:
    """Return the calls that may be executed; one that is not whole yet, or never will be, is not among them."""
    valid = [call for call in calls if call.is_valid]
    return [
        ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=dict(call.arguments or {}))
        for call in valid
    ]


def to_kwargs(calls: Iterable[ToolCall]) -> dict[str, Any]:
    """Return what stands in a message's additional_kwargs: "tool_calls" in OpenAI's form, and "invalid_tool_calls"."""
    whole, invalid = [], []
    for call in calls:
        if call.is_valid:
            function = {"name": call.name, "arguments": call.text}
            whole.append({"id": call.id, "type": "function", "function": function})
        elif call.error is not None:
            invalid.append({"id": call.id, "name": call.name, "arguments": call.text, "error": call.error})
    return {name: found for name, found in (("tool_calls", whole), ("invalid_tool_calls", invalid)) if found}


def to_deltas(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    """Return the pieces of calls that came last: name and id first, then fragments of the arguments' JSON."""
    return [{"index": call.index, "id": call.id, "name": call.name, "arguments": call.text} for call in calls]


def select_tools(message: ChatMessage) -> list[ToolSelection]:
    """Return the whole calls of a message: those of its blocks, or of its additional_kwargs where it has none."""
    found = [(b.tool_call_id, b.tool_name, b.tool_kwargs) for b in message.blocks if isinstance(b, ToolCallBlock)]
    given = message.additional_kwargs.get("tool_calls")
    for call in given if isinstance(given, (list, tuple)) and not found else ():
        plain = call.model_dump() if hasattr(call, "model_dump") else call
        function = plain.get("function") if isinstance(plain, Mapping) else None
        if isinstance(function, Mapping) and function.get("name"):
            found.append((plain.get("id"), function["name"], function.get("arguments") or {}))
    whole = [(call_id, name, read_arguments(arguments)) for call_id, name, arguments in found]
    return [
        ToolSelection(tool_id=call_id or f"call_{uuid4().hex[:24]}", tool_name=name, tool_kwargs=arguments)
        for call_id, name, arguments in whole
        if arguments is not None
    ]


def read_calls(kwargs: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the calls under a key of additional_kwargs, which are dicts or pydantic models; [] where there are none.

    Raises:
        ValueError: something else stands there.
    """
    value = kwargs.get(name) or []
    given: Any = value if isinstance(value, (list, tuple)) else [None]
    plain = [call.model_dump() if hasattr(call, "model_dump") else call for call in given]
    if not all(isinstance(call, Mapping) for call in plain):
        raise ValueError(f"{name} of a message, {value!r:.200}, cannot be read; a list of dicts is needed")
    return [dict(call) for call in plain]


def read_arguments(arguments: Any) -> dict[str, Any] | None:
    """Return arguments that are a dict or the JSON of one; None when they are not, or not whole."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return dict(arguments) if isinstance(arguments, Mapping) else None


def describe_invalid(message: ChatMessage) -> str | None:
    """Return why calls of a message must not be executed, None where there is no such call."""
    calls = read_calls(message.additional_kwargs, "invalid_tool_calls")
    if not calls:
        return None
    lines = [
        f"{call.get('name') or 'a tool'}: {call.get('error')}; its arguments: {call.get('arguments')!r}"
        for call in calls
    ]
    return "calls that cannot be executed: " + "; ".join(lines)
