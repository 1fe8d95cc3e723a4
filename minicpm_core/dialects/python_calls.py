"""MiniCPM3 and MiniCPM4: calls as lines of Python, `f(a="x", n=1)`, which are parsed and never evaluated."""

from __future__ import annotations

import ast
import json
import keyword
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from minicpm_core.dialects.dialect import Call, Dialect, Marker, count_calls
from minicpm_core.dialects.grammar import Rules, Style, arguments, quote, sequence, value
from minicpm_core.dialects.reading import CallReader, Calls, expand_parameters
from minicpm_core.dialects.scanning import Problem, Scanner, Wait
from minicpm_core.dialects.texts import branches, read_literal
from minicpm_core.schema_joining import Schema
from minicpm_core.tools import Tool

START, END, FENCE = "<|tool_call_start|>", "<|tool_call_end|>", "```"
NAME = re.compile(r"[^\s()=,\"'\[\]{}`<|]+")
EXTRA_NAME = "/[A-Za-z_][A-Za-z0-9_]{0,31}/"
TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", "array": "list"}


def python_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each name the Python identifier that stands for it, in the normal form that Python compares."""
    found: dict[str, str] = {}
    for name in names:
        word = "".join(sign if f"a{sign}".isidentifier() else "_" for sign in unicodedata.normalize("NFKC", name))
        word = word if word.isidentifier() else f"_{word}"
        word += "_" * keyword.iskeyword(word)
        while word in found.values():
            word += "_"
        found[name] = word
    return found


def _back(names: Iterable[str]) -> dict[str, str]:
    """Return the names by identifier; a name as it is given is understood too."""
    names = list(names)
    return {name: name for name in names} | {word: name for name, word in python_names(names).items()}


def dump_python(value: Any) -> str:
    """Return a JSON value as Python; the escapes of `json.dumps` mean the same there."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dump_python(key)}: {dump_python(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(dump_python, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


STYLE = Style(dump_python)


def write_grammar(tools: Sequence[Tool], *, room: int, parallel: bool, marker: Marker) -> str:
    """Return the grammar of the calls."""
    most, each = count_calls(room, parallel)
    rules = Rules()
    calls = []
    functions = python_names(tool.name for tool in tools)
    for tool in tools:
        tree = arguments(tool, each)
        words = python_names(tree["properties"])
        entries = [
            (f"{quote(words[name] + '=')} {value(rules, node, STYLE)}", name in tree["required"])
            for name, node in tree["properties"].items()
        ]
        extra = ""
        if tree.get("extra"):
            extra = f'{rules.token(EXTRA_NAME)} "=" {value(rules, tree["additional"], STYLE)}'
        least = max(0, tree.get("minProperties", 0) - len(entries))
        body = sequence(rules, entries, extra, least, tree.get("extra", 0), ", ")
        calls.append(rules.add(f'{quote(functions[tool.name] + "(")} {body} ")"'))
    one = rules.add(" | ".join(calls))
    several = "" if most == 1 else f'("\\n" {one}){{0,{most - 1}}}'
    return rules.text(f'{marker(START)} "\\n```python\\n" {one} {several} "\\n```\\n" {marker(END)}')


def write_calls(calls: Sequence[Call], tools: Sequence[Tool] = ()) -> str:
    """Return the calls as text."""
    functions = python_names(tool.name for tool in tools)
    parameters = {tool.name: python_names(expand_parameters(tool)["properties"]) for tool in tools}
    lines = []
    for name, given in calls:
        words = python_names(given) | parameters.get(name, {})
        pairs = ", ".join(f"{words[key]}={dump_python(part)}" for key, part in given.items())
        lines.append(f"{functions.get(name) or python_names([name])[name]}({pairs})")
    return "\n".join([START, "```python", *lines, FENCE, END])


def _reader(tools: Sequence[Tool]) -> CallReader:
    functions = _back(tool.name for tool in tools)

    def read(scanner: Scanner, calls: Calls) -> Wait[None]:
        parameters = {name: _back(signature.parameters) for name, signature in calls.signatures.items()}
        while (yield from scanner.skip()) and (yield from scanner.starts(START)):
            yield from scanner.skip()
            if (yield from scanner.starts(FENCE)):
                yield from scanner.starts("python")
            while (yield from scanner.skip()):
                word = yield from scanner.starts(FENCE, END)
                if word == END:
                    break
                if scanner.closed and any(end.startswith(scanner.text[scanner.at :]) for end in (FENCE, END)):
                    return
                if not word:
                    steps = _read_call(scanner, calls, functions, parameters)
                    yield from calls.attempt(scanner, steps, "\n", END, FENCE, keep=True)

    return CallReader(tools, read)


def _read_call(
    scanner: Scanner, calls: Calls, functions: dict[str, str], parameters: dict[str, dict[str, str]]
) -> Wait[None]:
    word = unicodedata.normalize("NFKC", (yield from scanner.span(NAME)))
    if not word:
        raise Problem(f"a call expected, found {scanner.text[scanner.at : scanner.at + 1]!r}")
    yield from scanner.expect("(")
    signature = calls.open(functions.get(word, word))
    keys = parameters[signature.tool.name]
    position = 0
    while True:
        first = yield from scanner.skip()
        if first == ")":
            scanner.take(1)
            return
        if not first:
            yield from scanner.more()
        word = yield from scanner.span(NAME)
        sign = yield from scanner.skip()
        if not sign:
            yield from scanner.more()
        if word and sign == "=":
            scanner.take(1)
            first = yield from scanner.skip()
            name = unicodedata.normalize("NFKC", word)
            calls.begin(keys.get(name, keys.get(word, name)))
            word = ""
        else:
            if position >= len(signature.parameters):
                raise Problem(f"tool {signature.tool.name} takes {len(signature.parameters)} parameters")
            calls.begin(list(signature.parameters)[position])
            position += 1
        yield from _read_value(scanner, calls, word, first)
        if (yield from scanner.skip()) == ",":
            scanner.take(1)
        else:
            yield from scanner.expect(")")
            return


def _read_value(scanner: Scanner, calls: Calls, word: str, first: str) -> Wait[None]:
    if not word and first and first in "\"'":
        quote = yield from scanner.starts(first * 3, first)
        send, end = calls.text()
        if len(quote) == 1 and (yield from scanner.peek()) == first:
            scanner.take(1)
        else:
            yield from scanner.string(quote, _decode, send)
        return end()
    text = word + (yield from scanner.literal("\"'", ",)"))
    try:
        calls.value(read_literal(text))
    except ValueError as error:
        raise Problem(str(error)) from None


def _decode(escape: str) -> str:
    try:
        return str(ast.literal_eval(f'"{escape}"'))
    except (SyntaxError, ValueError):
        raise Problem(f"{escape!r} is no escape in Python") from None


def write_tools(tools: Sequence[Tool]) -> str:
    """Return system text with the tools as Python functions."""
    functions = python_names(tool.name for tool in tools)
    stubs = [_write_stub(functions[tool.name], tool) for tool in tools]
    form = f'To call some, answer with\n{START}\n```python\nfunction(key="value")\n```\n{END}\none call per line.'
    return "\n".join(["You may call these functions:", "```python", *stubs, FENCE, form])


def _write_stub(word: str, tool: Tool) -> str:
    tree = expand_parameters(tool)
    words = python_names(tree["properties"])
    # Parameters without a default come first in Python.
    names = sorted(words, key=lambda name: name not in tree["required"])
    given = tool.parameters.get("properties") or {}
    parts = [
        f"{words[name]}: {_type(tree['properties'][name])}{'' if name in tree['required'] else ' = ...'}"
        for name in names
    ]
    lines = [tool.description.strip()] if tool.description.strip() else []
    for name in names:
        if isinstance(given.get(name), dict) and given[name].get("description"):
            lines.append(f"{words[name]}: {given[name]['description']}")
    doc = f'    """{(chr(10) + "    ").join(lines)}"""' if lines else "    ..."
    return f"def {word}({', '.join(parts)}):\n{doc}"


def _type(node: Schema) -> str:
    words = [
        f"Literal[{', '.join(map(dump_python, part['enum']))}]" if "enum" in part else TYPES.get(part["type"], "dict")
        for part in branches(node)
    ]
    return " | ".join(dict.fromkeys(words))


PYTHON = Dialect(
    name="python",
    opening=START,
    grammar=write_grammar,
    reader=_reader,
    write_calls=write_calls,
    write_tools=write_tools,
    write_result=lambda name, text: text,
    result_role="tool",
    thought=("<|thought_start|>", "<|thought_end|>"),
)
