"""Values that stand in tags: strings as raw text, other types as JSON."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from minicpm_core.dialects.reading import dump, load, read_error
from minicpm_core.schema_bounds import FORMATS, SHORTEST
from minicpm_core.schema_joining import Schema

MAX_LITERAL = 100_000
"""Characters of a Python value beyond which it is refused."""


def branches(node: Schema) -> list[Schema]:
    """Return the alternatives of a tree, enums split into their strings and other values."""
    parts: list[Schema] = []
    for part in node.get("anyOf", [node]):
        texts = [value for value in part.get("enum", []) if isinstance(value, str)]
        others = [value for value in part.get("enum", []) if not isinstance(value, str)]
        parts += [{"enum": values} for values in (texts, others) if values] if "enum" in part else [part]
    return parts


def is_text(branch: Schema) -> bool:
    """Return whether all values of a branch are strings."""
    return branch.get("type") == "string" or isinstance(branch.get("enum", [None])[0], str)


def is_open_text(branch: Schema) -> bool:
    """Return whether a branch is strings with room for the text of another branch's values."""
    return (
        branch.get("type") == "string"
        and "pattern" not in branch
        and branch.get("format") not in FORMATS
        and branch.get("minLength", 0) <= 1
        and branch.get("maxLength", SHORTEST) >= SHORTEST
    )


def split(node: Schema) -> tuple[list[Schema], bool]:
    """Return the branches that are written as raw text, and whether JSON is written too.

    A value of several types is raw text where any text will do (and what reads as JSON of another branch is that),
    JSON where its strings follow rules.
    """
    parts = branches(node)
    texts = [part for part in parts if is_text(part)]
    if len(texts) == len(parts):
        return texts, False
    if any(map(is_open_text, texts)):
        return [next(part for part in texts if is_open_text(part))], False
    return [part for part in texts if "enum" in part], True


def read_text(node: Schema, text: str) -> Any:
    """Return the value that a text stands for: JSON that the schema allows, else a string where it allows one."""
    parts = branches(node)
    texts = [part for part in parts if is_text(part)]
    if len(texts) == len(parts):
        return text
    try:
        value = load(text)
        if not texts or read_error(node, value) is None:
            return value
    except ValueError:
        pass
    return text if texts else read_literal(text, text)


def write_text(node: Schema | None, value: Any) -> str:
    """Return the text of a value that `read_text` reads as this value; without a schema a string stands as it is."""
    if not isinstance(value, str):
        return dump(value)
    if node is None:
        return value
    raw = not split(node)[1] or any(value in part.get("enum", []) for part in split(node)[0])
    return value if raw and read_text(node, value) == value else dump(value)


def read_literal(text: str, default: Any = None) -> Any:
    """Return the value of a Python literal, which is parsed and never evaluated; `default` when it is none.

    Args:
        text: strings, numbers, True, False, None (also true, false, null), lists, tuples and dicts of them.
        default: what to return for anything else; without one that is a ValueError.
    """
    try:
        if len(text) > MAX_LITERAL:
            raise ValueError(f"longer than {MAX_LITERAL} characters")
        return _plain(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        if default is not None:
            return default
        raise ValueError(f"{text[:80]!r} is no literal: {error}") from None


WORDS = {"true": True, "false": False, "null": None}


def _plain(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise ValueError("infinity is no JSON")
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(part) for part in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_plain(key) if key else None for key in node.keys]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise ValueError("keys are strings that stand once")
        return dict(zip(keys, map(_plain, node.values), strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _plain(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Name) and node.id in WORDS:
        return WORDS[node.id]
    raise ValueError("only strings, numbers, lists, dicts, True, False and None are")


def list_tools(tools: Any, form: str) -> str:
    """Return system text with the tools as JSON lines and the form of a call."""
    lines = [
        json.dumps(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}, ensure_ascii=False
        )
        for tool in tools
    ]
    return "\n".join(
        ["You may call these tools, given as one JSON object per line:", "<tools>", *lines, "</tools>", form]
    )


def write_response(name: str, text: str) -> str:
    """Return a tool's result as it stands in a user turn."""
    return f"<tool_response>\n{text}\n</tool_response>"
