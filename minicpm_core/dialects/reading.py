"""Tool calls in pieces: what every dialect's reader does with names, parameters and values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from minicpm_core.dialects.scanning import LONE, Cut, Problem, Scanner, Wait
from minicpm_core.schema_bounds import to_json_schema
from minicpm_core.schema_expansion import expand
from minicpm_core.schema_joining import Schema
from minicpm_core.schemas import find_error, make_check
from minicpm_core.tools import Tool
from minicpm_core.types import ToolCall, make_call_id

CUT = "the call was cut off before its end"


class Signature:
    """A tool and what its parameters take."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.tree = expand_parameters(tool)
        self.parameters: dict[str, Schema] = self.tree["properties"]
        self.find_error = make_check(tool.parameters)

    def parameter(self, name: str) -> Schema | None:
        """Return the tree of a parameter, None for one that the tool does not have."""
        extra: Schema | None = self.tree.get("additional")
        return self.parameters.get(name, extra)


def expand_parameters(tool: Tool) -> Schema:
    """Return the tree of a tool's parameters as one object, the alternatives of a union side by side."""
    empty = not tool.parameters.get("additionalProperties")
    given = tool.parameters if not empty else {"additionalProperties": False, **tool.parameters}
    try:
        tree = expand(given)
    except ValueError as error:
        raise ValueError(f"tool {tool.name}: {error}") from None
    branches = [branch for branch in tree.get("anyOf", [tree]) if branch.get("type") == "object"]
    if not branches:
        raise ValueError(f"tool {tool.name}: parameters are a JSON schema of an object; given {tool.parameters!r:.200}")
    if len(branches) == 1:
        return dict(branches[0])
    properties: dict[str, list[Schema]] = {}
    for branch in branches:
        for name, node in branch["properties"].items():
            properties.setdefault(name, []).extend(part for part in node.get("anyOf", [node]))
    unions = {name: list({json.dumps(part): part for part in parts}.values()) for name, parts in properties.items()}
    return {
        "type": "object",
        "properties": {name: {"anyOf": parts} if len(parts) > 1 else parts[0] for name, parts in unions.items()},
        "required": [name for name in properties if all(name in branch["required"] for branch in branches)],
    }


class Calls:
    """The calls read so far, as pieces: a name, fragments of the arguments' JSON, the whole arguments."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.signatures = {tool.name: Signature(tool) for tool in tools}
        self.signature: Signature | None = None
        self.id = self.name = self.key = ""
        self.arguments: dict[str, Any] = {}
        self.pieces: list[ToolCall] = []
        self.fragments: list[str] = []
        self.count = 0

    def attempt(self, scanner: Scanner, steps: Wait[None], *ends: str, keep: bool = False) -> Wait[None]:
        """Read one call with `steps`; after a problem go on behind the next of the `ends`."""
        self.id, self.name, self.arguments, self.key = make_call_id(), "", {}, ""
        self.signature = None
        scanner.raw = []
        try:
            yield from steps
            self.close()
        except Problem as problem:
            try:
                yield from scanner.until(*ends, keep=keep)
            except Cut:
                pass
            self.fail(str(problem), "".join(scanner.raw))
        except Cut:
            self.fail(CUT, "".join(scanner.raw))
        self.count += 1

    def open(self, name: str) -> Signature:
        """Begin the call of a tool, which sends its name."""
        self.name = name
        if name not in self.signatures:
            raise Problem(f"there is no tool {name!r:.80}; the tools are: {', '.join(self.signatures)}"[:500])
        self.signature = self.signatures[name]
        self.add(ToolCall(self.id, name, index=self.count))
        return self.signature

    def begin(self, key: str) -> Schema:
        """Begin a parameter and return the tree of its values."""
        assert self.signature
        node = self.signature.parameter(key)
        if node is None:
            names = ", ".join(self.signature.parameters)
            raise Problem(f"tool {self.name} has no parameter {key!r:.80}; its parameters are: {names}"[:500])
        if key in self.arguments:
            raise Problem(f"parameter {key} stands twice")
        self.fragments.append(f"{', ' if self.arguments else '{'}{dump(key)}: ")
        self.key = key
        self.arguments[key] = None
        return node

    def value(self, value: Any) -> None:
        """Send the parameter's value."""
        text, self.arguments[self.key] = clean(value)
        self.fragments.append(text)

    def text(self) -> tuple[Callable[[str], None], Callable[[], None]]:
        """Begin a string value: return the function that sends a part of it, and the one that ends it."""
        parts: list[str] = []
        self.fragments.append('"')

        def send(part: str) -> None:
            parts.append(part)
            self.fragments.append(dump(part)[1:-1])

        def end() -> None:
            self.arguments[self.key] = "".join(parts)
            self.fragments.append('"')

        return send, end

    def close(self) -> None:
        """End the call and check it."""
        assert self.signature
        error = self.signature.find_error(self.arguments)
        self.fragments.append("}" if self.arguments else "{}")
        self.add(ToolCall(self.id, arguments=self.arguments, error=error, index=self.count))

    def fail(self, error: str, raw: str) -> None:
        """End the call with an error, and its text where none was sent."""
        if self.signature is None:
            self.add(ToolCall(self.id, self.name, text=raw, error=error, index=self.count))
        else:
            self.add(ToolCall(self.id, error=error, index=self.count))

    def add(self, piece: ToolCall) -> None:
        """Send a piece after the fragments before it, or with them."""
        text = "".join(self.fragments)
        self.fragments = []
        if text and piece.name:
            raise AssertionError("a name comes before its arguments")
        self.pieces.append(ToolCall(piece.id, piece.name, piece.arguments, text + piece.text, piece.error, piece.index))

    def drain(self) -> list[ToolCall]:
        """Return the pieces that have come since the last time."""
        if self.fragments:
            self.add(ToolCall(self.id, index=self.count))
        pieces, self.pieces = self.pieces, []
        return pieces


class CallReader:
    """Reads the calls of one answer, from the first opening on, in pieces of any length.

    Args:
        tools: whose names and parameters are known; others are errors.
        read: the dialect's parser.
    """

    def __init__(self, tools: Sequence[Tool], read: Callable[[Scanner, Calls], Wait[None]]) -> None:
        self._scanner = Scanner()
        self._calls = Calls(tools)
        self._rest: list[str] = []
        self._steps = self._run(read)
        next(self._steps)

    @property
    def rest(self) -> str:
        """Text after the calls that belongs to none; white space alone is none."""
        return "".join(self._rest).strip()

    def push(self, text: str) -> list[ToolCall]:
        """Take a piece of text and return the pieces of calls that have become certain."""
        self._scanner.push(text)
        next(self._steps, None)
        return self._calls.drain()

    def flush(self) -> list[ToolCall]:
        """Return what is left at the end of the text; a call that is still open ends with an error."""
        self._scanner.closed = True
        next(self._steps, None)
        return self._calls.drain()

    def _run(self, read: Callable[[Scanner, Calls], Wait[None]]) -> Wait[None]:
        yield
        yield from read(self._scanner, self._calls)
        scanner = self._scanner
        while True:
            scanner.raw = []
            self._rest.append(scanner.take(len(scanner.text) - scanner.at))
            if scanner.closed:
                return
            yield


def dump(value: Any) -> str:
    """Return the JSON of a value in the form of all fragments: one line, characters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def clean(value: Any) -> tuple[str, Any]:
    """Return the JSON of a value and the value, halves of surrogate pairs replaced."""
    try:
        text = dump(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise Problem(f"the value is no JSON: {error}") from None
    return (text, value) if not LONE.search(text) else (LONE.sub("\ufffd", text), json.loads(LONE.sub("\ufffd", text)))


def load(text: str) -> Any:
    """Return the value of JSON text; a key that stands twice, NaN and infinity are refused with ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def read_error(node: Schema, value: Any) -> str | None:
    """Return what is wrong with a value against an expanded tree."""
    return find_error(to_json_schema(node), value)
