"""MiniCPM-V 4.6 and 4.7: `<tool_call>`, `<function=N>` and `<parameter=P>`, each on a line of its own."""

from __future__ import annotations

from collections.abc import Sequence

from minicpm_core.dialects.dialect import Call, Dialect, Marker, count_calls
from minicpm_core.dialects.grammar import Rules, Style, arguments, quote, sequence, text_token, value
from minicpm_core.dialects.reading import CallReader, Calls, Signature, dump
from minicpm_core.dialects.scanning import Scanner, Wait
from minicpm_core.dialects.texts import branches, is_text, list_tools, read_text, split, write_response, write_text
from minicpm_core.schema_joining import Schema
from minicpm_core.tools import Tool

STYLE = Style(dump)
END = "\n</parameter>"
EXTRA_NAME = "/[A-Za-z_][A-Za-z0-9_.-]{0,31}/"


def write_grammar(tools: Sequence[Tool], *, room: int, parallel: bool, marker: Marker) -> str:
    """Return the grammar of the calls."""
    most, each = count_calls(room, parallel)
    rules = Rules()
    calls = []
    for tool in tools:
        tree = arguments(tool, each)
        entries = [
            (f"{quote(f'<parameter={name}>' + chr(10))} {_value(rules, node)}", name in tree["required"])
            for name, node in tree["properties"].items()
        ]
        extra = ""
        if tree.get("extra"):
            extra = f'"<parameter=" {rules.token(EXTRA_NAME)} ">\\n" {_value(rules, tree["additional"])}'
        least = max(0, tree.get("minProperties", 0) - len(entries))
        body = sequence(rules, entries, extra, least, tree.get("extra", 0), "")
        start = f"{marker('<tool_call>')} {quote(f'{chr(10)}<function={tool.name}>{chr(10)}')}"
        calls.append(rules.add(f'{start} {body} "</function>\\n" {marker("</tool_call>")}'))
    one = rules.add(" | ".join(calls))
    return rules.text(one if most == 1 else f'{one} ("\\n" {one}){{0,{most - 1}}}')


def _value(rules: Rules, node: Schema) -> str:
    texts, json_too = split(node)
    end = quote(END + "\n")
    forms = [f"{value(rules, node, STYLE)} {end}"] if json_too else []
    for branch in texts:
        if "enum" in branch:
            forms += [f"{quote(text)} {end}" for text in branch["enum"]]
        else:
            forms.append(rules.add(text_token(rules, branch, "(?s:.)"), f"[suffix={end}]"))
    return rules.add(" | ".join(forms))


def write_calls(calls: Sequence[Call], tools: Sequence[Tool] = ()) -> str:
    """Return the calls as text."""
    signatures = {tool.name: Signature(tool) for tool in tools}
    texts = []
    for name, given in calls:
        signature = signatures.get(name)
        lines = ["<tool_call>", f"<function={name}>"]
        for key, part in given.items():
            node = signature.parameter(key) if signature else None
            lines.append(f"<parameter={key}>\n{write_text(node, part)}{END}")
        texts.append("\n".join([*lines, "</function>", "</tool_call>"]))
    return "\n".join(texts)


def _read_calls(scanner: Scanner, calls: Calls) -> Wait[None]:
    while (yield from scanner.skip()) and (yield from scanner.starts("<tool_call>", keep=True)):
        yield from calls.attempt(scanner, _read_call(scanner, calls), "</tool_call>")


def _read_call(scanner: Scanner, calls: Calls) -> Wait[None]:
    yield from scanner.expect("<tool_call>")
    yield from scanner.expect("<function=")
    name, _ = yield from scanner.until(">")
    calls.open(name.strip())
    while True:
        if (yield from scanner.expect("<parameter=", "</function>")) == "</function>":
            yield from scanner.expect("</tool_call>")
            return
        key, _ = yield from scanner.until(">")
        node = calls.begin(key.strip())
        yield from scanner.starts("\n")
        if all(map(is_text, branches(node))):
            send, end = calls.text()
            yield from scanner.until(END, emit=send)
            end()
        else:
            text, _ = yield from scanner.until(END)
            calls.value(read_text(node, text))


QWEN3_CODER = Dialect(
    name="qwen3_coder",
    opening="<tool_call>",
    grammar=write_grammar,
    reader=lambda tools: CallReader(tools, _read_calls),
    write_calls=write_calls,
    write_tools=lambda tools: list_tools(
        tools,
        "To call one, answer with these lines:\n<tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n"
        "</function>\n</tool_call>",
    ),
    write_result=write_response,
    result_role="user",
)
