"""LangChain's forms of tools, tool_choice and response_format -> those of the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, get_origin

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import is_typeddict

from minicpm_core.schemas import read_schema

ToolLike = Mapping[str, Any] | type | Callable[..., Any] | BaseTool
_MODES = {"auto": "auto", "none": "none", "any": "any", "required": "any"}


def to_tool(tool: ToolLike) -> dict[str, Any]:
    """Return an OpenAI tool dict with name, description and parameters.

    Args:
        tool: a LangChain tool, pydantic class, TypedDict, function, OpenAI or Anthropic dict, or a JSON schema with a
            title.

    Raises:
        ValueError: none of these, or a tool that only its provider can run.
    """
    if isinstance(tool, Mapping):
        tool = dict(tool)
        kind = tool.get("type")
        if "title" in tool and not {"name", "function", "input_schema", "toolSpec"} & tool.keys():
            parameters = {key: value for key, value in tool.items() if key not in ("title", "description")}
            return _tool(tool["title"], tool.get("description"), parameters)
        if isinstance(kind, str) and kind not in ("function", "object", "custom") and "input_schema" not in tool:
            raise ValueError(f"the tool {tool} is one of a provider's own and cannot run here; give a function")
    function = convert_to_openai_tool(tool).get("function")
    if not function or not function.get("name"):
        raise ValueError(f"the tool {tool!r} has no function with a name; see bind_tools for what is accepted")
    return _tool(
        function["name"], function.get("description"), _schema_with_references(tool) or function.get("parameters")
    )


def _tool(name: Any, description: str | None, parameters: dict[str, Any] | None) -> dict[str, Any]:
    if not isinstance(name, str):
        raise ValueError(f"the name of a tool is a string; given {name!r:.200}")
    function: dict[str, Any] = {"name": name, "description": description or ""}
    return {
        "type": "function",
        "function": function | {"parameters": parameters or {"type": "object", "properties": {}}},
    }


def _schema_with_references(tool: Any) -> dict[str, Any] | None:
    """Return the schema of a pydantic class that refers to itself; LangChain's conversion loses such references."""
    model = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None
    schema = model.model_json_schema()
    if "$defs" not in schema:
        return None
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def to_tool_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> Any:
    """Return "auto", "none", "any" or {"type": "function", "function": {"name": ...}}; None stays None.

    Raises:
        ValueError: another form, or a name that none of the tools has.
    """
    if choice is None or choice is False:
        return None
    names = [tool["function"]["name"] for tool in tools]
    name, word = _read_choice(choice)
    if name in names:
        return {"type": "function", "function": {"name": name}}
    mode = _MODES.get(word) if isinstance(word, str) else None
    if mode is None:
        raise ValueError(
            f'tool_choice is {choice!r}; accepted: "auto", "none", "any" or "required" or True, or one of the tools: '
            f"{', '.join(names) or 'none are bound'}"
        )
    if mode == "any" and not names:
        raise ValueError(f"tool_choice is {choice!r}, but there are no tools to choose from")
    return mode


def _read_choice(choice: Any) -> tuple[Any, Any]:
    """Return what may be the name of a tool, and what may be one of the words."""
    if choice is True:
        return None, "any"
    if not isinstance(choice, Mapping):
        return choice, choice
    if choice.get("type") not in ("function", "tool"):
        return None, choice.get("type")
    function = choice.get("function")
    return (function if isinstance(function, Mapping) else choice).get("name"), None


def to_response_schema(response_format: Any) -> dict[str, Any] | None:
    """Return the JSON schema that a response_format asks for; None where it asks for none.

    Args:
        response_format: {"type": "json_schema", "json_schema": {"name", "schema"}}, {"type": "json_object"},
            {"type": "text"}, a JSON schema, or a pydantic class or TypedDict.

    Raises:
        ValueError: none of these.
    """
    if isinstance(response_format, Mapping):
        kind = response_format.get("type")
        if kind == "text":
            return None
        if kind == "json_object":
            return {"type": "object"}
        if kind == "json_schema":
            schema = (response_format.get("json_schema") or {}).get("schema")
            if not isinstance(schema, Mapping):
                raise ValueError(
                    f'response_format is {response_format}; "json_schema" needs {{"name": ..., "schema": ...}}'
                )
            return dict(schema)
    return None if response_format is None else to_json_schema(response_format)


def to_response_format(response_format: Any) -> dict[str, Any]:
    """Return OpenAI's form of a response_format, whose text tells one schema from another in traces and caches."""
    forms = ("json_schema", "json_object", "text")
    if isinstance(response_format, Mapping) and response_format.get("type") in forms:
        return dict(response_format)
    schema = to_json_schema(response_format)
    return {"type": "json_schema", "json_schema": {"name": schema.get("title", "response"), "schema": schema}}


def to_json_schema(schema: Any) -> dict[str, Any]:
    """Return the JSON schema of a pydantic class, TypedDict, dataclass, dict or tool.

    Raises:
        ValueError: none of these.
    """
    is_class = isinstance(schema, type) and get_origin(schema) is None  # in Python 3.10 list[int] is a type
    if is_class and issubclass(schema, BaseModel):
        return dict(schema.model_json_schema())
    if is_class and issubclass(schema, BaseModelV1):
        return dict(schema.schema())
    if isinstance(schema, Mapping) and not {"function", "input_schema", "parameters", "toolSpec"} & schema.keys():
        return read_schema(dict(schema))
    known = isinstance(schema, (Mapping, BaseTool)) or inspect.isroutine(schema) or is_typeddict(schema)
    if not known and not (is_class and is_dataclass(schema)):
        raise ValueError(
            f"the schema is {schema!r}; accepted: a pydantic class, a TypedDict, a dataclass, a JSON schema or a tool; "
            "put other types into the field of one"
        )
    return convert_to_json_schema(schema)
