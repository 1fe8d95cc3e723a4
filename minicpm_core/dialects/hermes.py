"""Calls as JSON objects: between `<tool_call>` tags (MiniCPM-V 4.5), or bare lines for models trained on no syntax."""

from __future__ import annotations

import json
from collections.abc import Sequence

from minicpm_core.dialects.dialect import Call, Dialect, Marker, count_calls
from minicpm_core.dialects.grammar import Rules, Style, arguments, quote, value
from minicpm_core.dialects.reading import CallReader, Calls, dump, load
from minicpm_core.dialects.scanning import Problem, Scanner, Wait
from minicpm_core.dialects.texts import list_tools, write_response
from minicpm_core.tools import Tool

# Not llguidance's own `%json`: a hundred tools with nested parameters are too large for it.
STYLE = Style(dump)
BARE_OPENING = '{"name":'


def _grammar(tools: Sequence[Tool], room: int, parallel: bool, start: str, end: str) -> str:
    most, each = count_calls(room, parallel)
    rules = Rules()
    bodies = [
        quote(dump(tool.name) + ', "arguments": ') + " " + value(rules, arguments(tool, each), STYLE) for tool in tools
    ]
    one = rules.add(f"{start} ({' | '.join(map(rules.add, bodies))}) {end}")
    return rules.text(one if most == 1 else f'{one} ("\\n" {one}){{0,{most - 1}}}')


def _write_tagged_grammar(tools: Sequence[Tool], *, room: int, parallel: bool, marker: Marker) -> str:
    start = f"{marker('<tool_call>')} {quote(chr(10) + BARE_OPENING + ' ')}"
    return _grammar(tools, room, parallel, start, f'"}}\\n" {marker("</tool_call>")}')


def _write_bare_grammar(tools: Sequence[Tool], *, room: int, parallel: bool, marker: Marker) -> str:
    return _grammar(tools, room, parallel, quote(BARE_OPENING + " "), '"}"')


def _write_bare(calls: Sequence[Call], tools: Sequence[Tool] = ()) -> str:
    return "\n".join(dump({"name": name, "arguments": given}) for name, given in calls)


def _write_tagged(calls: Sequence[Call], tools: Sequence[Tool] = ()) -> str:
    return "\n".join(f"<tool_call>\n{_write_bare([call])}\n</tool_call>" for call in calls)


def _read_tagged(scanner: Scanner, calls: Calls) -> Wait[None]:
    while (yield from scanner.skip()) and (yield from scanner.starts("<tool_call>", keep=True)):
        yield from calls.attempt(scanner, _read_tagged_call(scanner, calls), "</tool_call>")


def _read_tagged_call(scanner: Scanner, calls: Calls) -> Wait[None]:
    yield from scanner.expect("<tool_call>")
    yield from _read_call(scanner, calls)
    yield from scanner.expect("</tool_call>")


def _read_bare(scanner: Scanner, calls: Calls) -> Wait[None]:
    while (yield from scanner.skip()) and (yield from scanner.starts(BARE_OPENING, keep=True)):
        yield from calls.attempt(scanner, _read_call(scanner, calls), "\n")


def _read_call(scanner: Scanner, calls: Calls) -> Wait[None]:
    for sign in ("{", '"name"', ":", '"'):
        yield from scanner.expect(sign)
    calls.open((yield from _read_string(scanner)))
    for sign in (",", '"arguments"', ":", "{"):
        yield from scanner.expect(sign)
    if (yield from scanner.skip()) == "}":
        scanner.take(1)
        yield from scanner.expect("}")
        return
    while True:
        yield from scanner.expect('"')
        key = yield from _read_string(scanner)
        yield from scanner.expect(":")
        first = yield from scanner.skip()
        calls.begin(key)
        if first == '"':
            scanner.take(1)
            send, end = calls.text()
            yield from scanner.string('"', decode, send)
            end()
        else:
            text = yield from scanner.literal('"', ",}")
            try:
                calls.value(load(text))
            except ValueError as error:
                raise Problem(f"{text[:80]!r} is no JSON: {error}") from None
        if (yield from scanner.expect(",", "}")) == "}":
            yield from scanner.expect("}")
            return


def _read_string(scanner: Scanner) -> Wait[str]:
    parts: list[str] = []
    yield from scanner.string('"', decode, parts.append)
    return "".join(parts)


def decode(escape: str) -> str:
    """Return the character of a JSON escape."""
    try:
        return str(json.loads(f'"{escape}"'))
    except ValueError:
        raise Problem(f"{escape!r} is no escape in JSON") from None


FORM = '{"name": NAME, "arguments": {KEY: VALUE}}'
HERMES = Dialect(
    name="hermes",
    opening="<tool_call>",
    grammar=_write_tagged_grammar,
    reader=lambda tools: CallReader(tools, _read_tagged),
    write_calls=_write_tagged,
    write_tools=lambda tools: list_tools(tools, f"To call one, answer with\n<tool_call>\n{FORM}\n</tool_call>"),
    write_result=write_response,
    result_role="user",
)
JSON = Dialect(
    name="json",
    opening=BARE_OPENING,
    grammar=_write_bare_grammar,
    reader=lambda tools: CallReader(tools, _read_bare),
    write_calls=_write_bare,
    write_tools=lambda tools: list_tools(
        tools, f"To call a tool, answer only with {FORM}, one call per line. Without need of a tool, answer in words."
    ),
    write_result=write_response,
    result_role="user",
)
