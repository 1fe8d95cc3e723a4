"""Tools, calls of them, and the JSON schemas as LangChain, LlamaIndex and people write them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from random import Random
from typing import Any

_TYPES = {
    "int": "integer",
    "whole": "integer",
    "decimal": "number",
    "float": "number",
    "flag": "boolean",
    "onoff": "boolean",
    "zh_onoff": "boolean",
}
_PYTHON = {"integer": "int", "number": "float", "boolean": "bool", "string": "str", "array": "list"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a tool; `kind` is one of `tool_values.KINDS`, "enum(a;b)", "list(kind)" or a kind of a flag."""

    key: str
    kind: str
    required: bool = True
    description: str = ""

    @property
    def type(self) -> str:
        """The JSON type."""
        return "array" if self.kind.startswith("list(") else _TYPES.get(self.kind, "string")

    def schema(self) -> dict[str, Any]:
        """Return the bare JSON schema."""
        if self.type == "array":
            return {"items": {"type": _TYPES.get(self.kind[5:-1], "string")}, "type": "array"}
        if self.kind.startswith("enum("):
            return {"enum": self.kind[5:-1].split(";"), "type": "string"}
        return {"type": self.type}


@dataclass(frozen=True)
class Tool:
    """A tool and the requests that name its values; `group` is shared by tools that could serve the same request."""

    name: str
    description: str
    parameters: tuple[Parameter, ...] = ()
    requests: tuple[str, ...] = ()
    language: str = "en"
    group: str = ""


@dataclass(frozen=True)
class Call:
    """A call with the arguments as the prompt shows them: strings bare, the rest as JSON."""

    tool: Tool
    arguments: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the call in the syntax of the chat template."""
        parts = []
        for key, shown in self.arguments.items():
            marked = f"<![CDATA[{shown}]]>" if re.search(r"[<&\n]", shown) else shown
            parts.append(f'<param name="{key}">{marked}</param>')
        return f'<function name="{self.tool.name}">{"".join(parts)}</function>'

    def message(self) -> dict[str, Any]:
        """Return the call as an entry of `tool_calls`."""
        kinds = {p.key: p.type for p in self.tool.parameters}
        arguments = {k: v if kinds[k] == "string" else json.loads(v) for k, v in self.arguments.items()}
        return {"type": "function", "function": {"name": self.tool.name, "arguments": arguments}}


def parse_rows(text: str, language: str) -> list[tuple[list[str], list[str], list[Parameter], list[str]]]:
    """Return names, descriptions, parameters and requests of each row of a table."""
    rows = []
    for line in text.strip().splitlines():
        names, descriptions, parameters, requests = line.split("|")
        parsed = []
        for part in parameters.split(",") if parameters else []:
            key, kind = part.split(":", 1)
            parsed.append(Parameter(key, kind.rstrip("?"), required=not kind.endswith("?")))
        rows.append((names.split(" ~ "), descriptions.split(" ~ "), parsed, requests.split(" ~ ")))
    return rows


def _signature(tool: Tool) -> str:
    """Return the signature line that LlamaIndex puts before a description."""
    parts = []
    for p in tool.parameters:
        kind = _PYTHON[p.type] if p.type != "array" else f"list[{_PYTHON[_TYPES.get(p.kind[5:-1], 'string')]}]"
        parts.append(f"{p.key}: {kind}" + ("" if p.required else " | None = None"))
    return f"{tool.name}({', '.join(parts)}) -> str"


def _optional(schema: dict[str, Any], style: int) -> dict[str, Any]:
    """Return the schema of an optional parameter."""
    if style == 0 and set(schema) == {"type"}:
        return {"anyOf": [schema, {"type": "null"}], "default": None}
    default: Any = {"integer": 1, "number": 1.0, "boolean": False, "string": "", "array": []}[schema["type"]]
    if "enum" in schema:
        default = schema["enum"][0]
    return {"default": default, **schema} if style == 1 else schema


def render(rng: Random, tool: Tool, style: str) -> dict[str, Any]:
    """Return the OpenAI-style dictionary of `tool` in one of the styles "langchain", "llamaindex", "openai"."""
    properties: dict[str, Any] = {}
    describe = rng.random() < (0.25 if tool.language == "en" else 0.6)
    optional = rng.randrange(3)
    for p in tool.parameters:
        schema = p.schema() if p.required else _optional(p.schema(), optional)
        if style == "llamaindex":
            schema["title"] = p.key.replace("_", " ").title()
            schema = dict(sorted(schema.items()))
        elif describe and p.description:
            entry = {"description": p.description}
            schema = schema | entry if style == "openai" else entry | schema
        if p.type == "integer" and rng.random() < 0.06:
            schema = {"exclusiveMaximum": 1000, "exclusiveMinimum": -1000} | schema
        properties[p.key] = schema
    needed = [p.key for p in tool.parameters if p.required]
    required = {"required": needed} if needed else {}
    body = {"properties": properties} | required | {"type": "object"}
    if style == "openai":
        body = {"type": "object", "properties": properties} | required
    description = tool.description
    if style == "llamaindex":
        description = f"{_signature(tool)}\n{description}"
    elif describe and rng.random() < 0.4 and tool.parameters:
        rows = "".join(f"\n    {p.key}: {p.description or p.key.replace('_', ' ')}" for p in tool.parameters)
        description += f"\n\nArgs:{rows}"
    function: dict[str, Any] = {"name": tool.name, "description": description, "parameters": body}
    return {"type": "function", "function": function}
