"""MiniCPM5: `<function name="N"><param name="P">V</param></function>`, one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from minicpm_core.dialects.dialect import Call, Dialect, Marker, count_calls
from minicpm_core.dialects.grammar import Rules, Style, arguments, quote, sequence, text_token, value
from minicpm_core.dialects.reading import CallReader, Calls, Signature
from minicpm_core.dialects.scanning import Problem, Scanner, Wait
from minicpm_core.dialects.texts import branches, is_text, list_tools, read_text, split, write_response, write_text
from minicpm_core.schema_expansion import walk
from minicpm_core.schema_joining import Schema
from minicpm_core.tools import Tool

# U+0120 is how byte-level tokenizers show a space; models lose or leak it inside tags.
TAG = re.compile("[\\s\u0120]*name[\\s\u0120]*=[\\s\u0120]*(?:\"([^\"]*)\"|'([^']*)')[\\s\u0120]*")
EXTRA_NAME = "/[A-Za-z_][A-Za-z0-9_.-]{0,31}/"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026")


def _dump_section(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("]]>", "]]\\u003e")


BARE = Style(_dump, r'[^"\\<&\x00-\x1f]')
SECTION = Style(_dump_section, without="]]>")


def write_grammar(tools: Sequence[Tool], *, room: int, parallel: bool, marker: Marker) -> str:
    """Return the grammar of the calls."""
    most, each = count_calls(room, parallel)
    rules = Rules()
    calls = []
    for tool in tools:
        tree = arguments(tool, each)

        def entry(name: str, node: Schema) -> str:
            return f"{marker('<param')} {name} {_value(rules, node)} {marker('</param>')}"

        entries = [
            (entry(quote(f' name="{name}">'), node), name in tree["required"])
            for name, node in tree["properties"].items()
        ]
        extra = ""
        if tree.get("extra"):
            extra = entry(f'" name=\\"" {rules.token(EXTRA_NAME)} "\\">"', tree["additional"])
        least = max(0, tree.get("minProperties", 0) - len(entries))
        body = sequence(rules, entries, extra, least, tree.get("extra", 0), "")
        name = quote(f' name="{tool.name}">')
        calls.append(rules.add(f"{marker('<function')} {name} {body} {marker('</function>')}"))
    return rules.text(f"({' | '.join(calls)}){{1,{most}}}")


def _value(rules: Rules, node: Schema) -> str:
    texts, json_too = split(node)
    forms = [form for branch in texts for form in _text(rules, branch)]
    if json_too:
        forms.append(value(rules, node, BARE))
        if any(part.get("type") in ("string", "object") or "enum" in part for part in walk(node)):
            forms.append(f'"<![CDATA[" {value(rules, node, SECTION)} "]]>"')
    return rules.add(" | ".join(forms))


def _text(rules: Rules, branch: Schema) -> list[str]:
    if "enum" in branch:
        return [quote(_wrap(text)) for text in branch["enum"]]
    section = rules.add(text_token(rules, branch, "(?s:.)"), '[suffix="]]>"]')
    bare = text_token(rules, {**branch, "minLength": max(1, branch["minLength"])}, r"[^<&\n]", strict=True)
    return [
        *([bare] if bare else []),
        *([""] if not branch["minLength"] and "pattern" not in branch else []),
        f'"<![CDATA[" {section}',
    ]


def _wrap(text: str) -> str:
    if not any(sign in text for sign in "<&\n"):
        return text
    return "<![CDATA[" + text.replace("]]>", "]]]]><![CDATA[>") + "]]>"


def write_calls(calls: Sequence[Call], tools: Sequence[Tool] = ()) -> str:
    """Return the calls as text."""
    signatures = {tool.name: Signature(tool) for tool in tools}
    texts = []
    for name, given in calls:
        signature = signatures.get(name)
        texts.append(f'<function name="{name}">')
        for key, part in given.items():
            node = signature.parameter(key) if signature else None
            text = write_text(node, part)
            wrapped = _wrap(text if isinstance(part, str) else _dump_section(part))
            texts.append(f'<param name="{key}">{wrapped}</param>')
        texts.append("</function>")
    return "".join(texts)


def _read_calls(scanner: Scanner, calls: Calls) -> Wait[None]:
    while (yield from scanner.skip()) and (yield from scanner.starts("<function", keep=True)):
        yield from calls.attempt(scanner, _read_call(scanner, calls), "</function>")


def _read_call(scanner: Scanner, calls: Calls) -> Wait[None]:
    yield from scanner.expect("<function")
    calls.open((yield from _read_name(scanner)))
    while True:
        tag = yield from scanner.expect("<param", "</function>", "<arguments>", "</arguments>")
        if tag == "</function>":
            return
        if tag == "<param":
            node = calls.begin((yield from _read_name(scanner)))
            if all(map(is_text, branches(node))):
                send, end = calls.text()
                yield from _read_content(scanner, send)
                end()
            else:
                parts: list[str] = []
                yield from _read_content(scanner, parts.append)
                calls.value(read_text(node, "".join(parts)))


def _read_name(scanner: Scanner) -> Wait[str]:
    text, _ = yield from scanner.until(">")
    match = TAG.fullmatch(text)
    if not match:
        raise Problem(f'name="..." expected in a tag, found {text[:80]!r}')
    return match[1] or match[2] or ""


def _read_content(scanner: Scanner, send: Callable[[str], None]) -> Wait[None]:
    """Read text and CDATA sections up to the parameter's end."""
    ends = ("</param>", "<![CDATA[")
    _, end = yield from scanner.until(*ends, emit=send)
    while end == "<![CDATA[":
        yield from scanner.until("]]>", emit=send)
        text, end = yield from scanner.until(*ends)
        if text.strip():
            send(text)


MINICPM5 = Dialect(
    name="minicpm5",
    opening="<function",
    grammar=write_grammar,
    reader=lambda tools: CallReader(tools, _read_calls),
    write_calls=write_calls,
    write_tools=lambda tools: list_tools(
        tools,
        'To call one, answer with <function name="NAME"><param name="KEY">VALUE</param></function>; several calls may '
        "follow each other. A value with <, & or a line break stands in <![CDATA[ ]]>.",
    ),
    write_result=write_response,
    result_role="user",
)
