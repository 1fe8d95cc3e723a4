"""Tools and the choice among them, read from the forms of OpenAI, Anthropic and both frameworks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from minicpm_core.control_tokens import refuse_half_characters

FORBIDDEN = set("<>&\"'=(){}[]\\`,;")
"""Characters that end a name in one of the call syntaxes."""
NO_PARAMETERS = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Tool:
    """What a model may call; `parameters` is the JSON schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """Whether the model may ("auto"), must not ("none") or has to ("required") call one of the `tools`."""

    mode: Literal["auto", "none", "required"]
    tools: tuple[Tool, ...]


def read_tools(tools: Sequence[Any] | None) -> tuple[Tool, ...]:
    """Return the tools of OpenAI dicts, bare dicts and Anthropic dicts.

    Args:
        tools: dicts {"type": "function", "function": {name, description, parameters}}, {name, description, parameters}
            or {name, description, input_schema}; a tool without parameters takes no arguments.

    Raises:
        ValueError: a name is missing, cannot be written or stands twice, or parameters are no object.
    """
    read = tuple(_read_tool(tool) for tool in tools or ())
    names = [tool.name for tool in read]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"tool names stand once; given more than once: {', '.join(twice)}")
    return read


def _read_tool(tool: Any) -> Tool:
    if isinstance(tool, Tool):
        return tool
    form = 'accepted: {"type": "function", "function": {...}}, {"name", "description", "parameters" or "input_schema"}'
    if not isinstance(tool, dict):
        raise ValueError(f"a tool is a dict; given {tool!r:.200}; {form}")
    inner = tool.get("function", tool)
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise ValueError(f"a tool has a name; given {tool!r:.200}; {form}")
    refuse_half_characters(inner)
    name = inner["name"]
    if problem := _name_problem(name, " "):
        raise ValueError(f"tool name {name!r:.80} {problem}; accepted: letters, digits and signs such as _ - . / :")
    parameters = inner.get("parameters", inner.get("input_schema")) or NO_PARAMETERS
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise ValueError(f"tool {name}: parameters are a JSON schema of an object; given {parameters!r:.200}")
    properties = parameters.get("properties") or {}
    if not isinstance(properties, dict):
        raise ValueError(f"tool {name}: properties are an object of schemas; given {properties!r:.200}")
    for key in properties:
        if problem := _name_problem(key, ""):
            raise ValueError(f"tool {name}: parameter name {key!r:.80} {problem}")
    return Tool(name, str(inner.get("description") or ""), parameters)


def _name_problem(name: Any, more: str) -> str | None:
    if not isinstance(name, str) or not name.strip():
        return "is empty"
    bad = sorted({sign for sign in name if sign in FORBIDDEN or sign in more or not sign.isprintable()})
    return f"holds {', '.join(map(repr, bad))}" if bad or name != name.strip() else None


def read_choice(tool_choice: Any, tools: Sequence[Tool]) -> Choice:
    """Return the mode and the allowed tools of a tool choice.

    Args:
        tool_choice: None, "auto", "none", "any", "required", True, False, a tool's name,
            {"type": "function", "function": {"name": ...}}, {"type": "tool", "name": ...} or
            {"type": "any"|"auto"|"none"}.
        tools: what there is to choose from.

    Raises:
        ValueError: an unknown tool or form, or a required call without tools.
    """
    tools = tuple(tools)
    choice = tool_choice
    if isinstance(choice, dict):
        inner: Any = choice.get("function")
        inner = inner if isinstance(inner, dict) else choice
        choice = inner.get("name", choice.get("type"))
    modes = {None: "auto", "auto": "auto", False: "none", "none": "none"}
    modes |= {True: "required", "any": "required", "required": "required"}
    names = [tool.name for tool in tools]
    if isinstance(choice, str) and choice in names and choice not in modes:
        return Choice("required", tuple(tool for tool in tools if tool.name == choice))
    if not isinstance(choice, str | bool | None) or choice not in modes:
        raise ValueError(
            f"tool_choice is {tool_choice!r:.200}; accepted: auto, none, any, required, True, "
            f"or a tool's name; the tools are: {', '.join(names) or 'none'}"
        )
    mode: Any = modes[choice]
    if mode == "required" and not tools:
        raise ValueError(f"tool_choice is {tool_choice!r}, but no tools are given")
    return Choice(mode, () if mode == "none" else tools)
