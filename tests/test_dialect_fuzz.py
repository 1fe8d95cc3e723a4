"""Random schemas and random walks: calls are valid or reported, and no text makes a reader raise."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from minicpm_core.dialects import DIALECTS, Dialect
from minicpm_core.schemas import find_error
from minicpm_core.tools import read_tools
from tests.toy_grammars import accepted, byte_tokens, demo_tokens, grammar_of, read, walk

EXAMPLES = int(os.environ.get("MINICPM_FUZZ_EXAMPLES", "40"))
"""Per test and dialect; with the variable set they are new ones at every run."""
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="MINICPM_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
NAMES = ("a", "from", "first name", "größe", "城市", "x-y", "x_y", "$id", "ﬁle", "None", "1st", "type", "a.b", "名_")
TEXTS = ("", "a", "null", "5", "a b", "<b>", "&amp;", "]]>", "x\ny", '"q"', "北京", "é😀", "</param>", "\\", "true")
UNCHECKED = {"uniqueItems", "not", "contains", "dependentRequired", "minProperties"}
"""Keywords that a grammar leaves to the check afterwards."""


def leaves() -> st.SearchStrategy[dict[str, Any]]:
    count = st.integers(0, 12)
    return st.one_of(
        st.just({}),
        st.just({"type": "string"}),
        st.builds(lambda a, b: {"type": "string", "minLength": min(a, b), "maxLength": max(a, b)}, count, count),
        st.sampled_from(["^[a-z]{2,4}$", "^a|b$", "\\d{3}", "^<.*>$", "[^x]", "^(?=a)", '^"']).map(
            lambda pattern: {"type": "string", "pattern": pattern}
        ),
        st.sampled_from(["date", "date-time", "time", "uuid", "email", "uri", "ipv4", "other"]).map(
            lambda form: {"type": "string", "format": form}
        ),
        st.lists(st.sampled_from([*TEXTS, 1, 2.5, None, True, [1], {"k": "v<"}]), min_size=1, max_size=4).map(
            lambda values: {"enum": values}
        ),
        st.sampled_from(TEXTS).map(lambda text: {"const": text}),
        st.just({"type": "integer"}),
        st.builds(lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)}, count, count),
        st.just({"type": "number"}),
        st.sampled_from([0.1, 0.01, 3, 1000]).map(lambda step: {"type": "number", "multipleOf": step}),
        st.just({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.just({"type": ["string", "null"]}),
        st.just({"type": ["integer", "string", "boolean"]}),
        st.just({"$ref": "#/$defs/node"}),
        st.just({"$ref": "#/$defs/word"}),
        st.just({"not": {"const": "a"}, "type": "string"}),
    )


def branches(child: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(lambda item, least: {"type": "array", "items": item, "minItems": least}, child, st.integers(0, 2)),
        child.map(lambda item: {"type": "array", "items": item, "uniqueItems": True, "maxItems": 3}),
        st.lists(child, min_size=1, max_size=3).map(lambda items: {"type": "array", "prefixItems": items}),
        child.map(lambda value: {"type": "object", "additionalProperties": value}),
        st.lists(child, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        st.lists(child, min_size=1, max_size=2).map(lambda parts: {"oneOf": parts}),
        objects(child),
    )


def objects(child: st.SearchStrategy[dict[str, Any]], most: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    def make(properties: dict[str, Any], required: set[str]) -> dict[str, Any]:
        names = sorted(required & properties.keys())
        return {"type": "object", "properties": properties, "required": names}

    return st.builds(
        make, st.dictionaries(st.sampled_from(NAMES), child, max_size=most), st.sets(st.sampled_from(NAMES))
    )


SCHEMAS = st.recursive(leaves(), branches, max_leaves=6)
DEFS = {
    "node": {
        "type": "object",
        "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["v"],
    },
    "word": {"type": "string", "maxLength": 6},
}
PARAMETERS = objects(SCHEMAS).map(lambda schema: {**schema, "$defs": DEFS})
TOOLS = st.lists(PARAMETERS, min_size=1, max_size=3).map(
    lambda many: [
        {"name": name, "parameters": schema}
        for name, schema in zip(("run-it", "größe.v2", "class"), many, strict=False)
    ]
)


def keywords(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        return set(schema) | {word for part in schema.values() for word in keywords(part)}
    return {word for part in schema for word in keywords(part)} if isinstance(schema, list) else set()


def checked_later(schema: Any) -> bool:
    """Whether a value may follow the grammar and not the schema: what a grammar cannot say, or double keys."""
    text = json.dumps(schema)
    lossy = any(part in text for part in ("(?=", "oneOf", '"multipleOf": 1000}'))
    return bool(keywords(schema) & (UNCHECKED | {"additionalProperties"})) or "{}" in text or lossy


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_walks_through_the_grammar_of_random_schemas_are_calls(dialect: Dialect):
    seen = {"ended": 0, "cut": 0, "reported": 0}

    @SETTINGS
    @given(
        TOOLS,
        st.integers(0, 2**31),
        st.sampled_from([0.0, 1.0, 4.0]),
        st.booleans(),
        st.sampled_from([60, 200]),
        st.sampled_from([20_000, 20_000, 20_000, 25]),
    )
    def check(given_tools: list[Any], seed: int, skew: float, single: bool, room: int, most: int) -> None:
        tools = read_tools(given_tools)
        tokens = byte_tokens() if seed % 4 == 0 else demo_tokens()
        grammar = grammar_of(dialect, tools, tokens, room, not single)
        text, ended = walk(grammar, tokens, seed, skew, most)
        calls = read(dialect.reader(tools), [text])
        assert calls == read(dialect.reader(tools), list(text))
        if not ended:
            assert most == 25, "no walk goes on for ever"
            seen["cut"] += 1
            if calls and dialect.reader(tools).push(text):
                assert all(call.error is None or call is calls[-1] or call.arguments is not None for call in calls)
            return
        seen["ended"] += 1
        assert 1 <= len(calls) <= (1 if single else 8)
        schemas = {tool.name: tool.parameters for tool in tools}
        for call in calls:
            schema = schemas[call.name]
            if call.error is None:
                assert call.arguments is not None
                assert find_error(schema, call.arguments) is None
            else:
                seen["reported"] += 1
                assert checked_later(schema), (call, text)
        if all(call.error is None for call in calls) and "e-0" not in text:
            again = dialect.write_calls([(call.name, call.arguments) for call in calls], tools)
            assert read(dialect.reader(tools), [again]) == calls
            assert "e-0" in again or accepted(grammar, again, tokens) == ""

    check()
    print(dialect.name, seen)
    assert seen["ended"] >= EXAMPLES // 3
    assert seen["cut"] >= EXAMPLES // 20


PARTS = st.one_of(
    st.sampled_from(
        [
            *TEXTS,
            "<function", ' name="', "f", "g", '">', "<param", "</param>", "</function>", "<![CDATA[", "]]>", "\u0120",
            "<arguments>", "<tool_call>", "</tool_call>", "<function=f>", "<parameter=s>", "\n</parameter>", "`",
            '{"name": "f", "arguments": {', '"s": ', "}", "{", "[", "]", "(", ")", ",", ":", "=", "'", '"', '"""',
            "<|tool_call_start|>", "<|tool_call_end|>", "```python", "```", "f(", "s=", "\\", "\\u", "\\ud83d", "\\N{",
            "\\x4", "1e999", "NaN", "-", "9" * 50, "True", "None", "\ud83d", "\x00", "\r", "\u2028", "lambda: 1",
            "__import__('os').system('false')", "open('x', 'w')", "f'{1}'", "1 if 1 else 2", "[x for x in (1,)]",
        ]
    ),
    st.text(max_size=4),
)  # fmt: skip
KNOWN = read_tools(
    [
        {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {"s": {"type": "string"}, "n": {"type": ["integer", "string"]}, "o": {}},
                "required": ["s"],
            },
        }
    ]
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_no_text_makes_a_reader_raise(dialect: Dialect):
    seen = {"whole": 0, "errors": 0}

    @settings(SETTINGS, max_examples=EXAMPLES * 5)
    @given(
        st.lists(PARTS, max_size=25),
        st.booleans(),
        st.lists(st.tuples(st.integers(0, 200), PARTS, st.integers(0, 8)), max_size=3),
        st.text(max_size=8),
    )
    def check(parts: list[str], spoilt: bool, edits: list[tuple[int, str, int]], word: str) -> None:
        text = dialect.opening + "".join(parts)
        if spoilt:  # a call with a few places overwritten
            text = dialect.write_calls([("f", {"s": word, "n": 5, "o": {"k": [word]}}), ("f", {"s": "x"})], KNOWN)
            for at, part, length in edits:
                text = text[:at] + part + text[at + length :]
        whole = read(dialect.reader(KNOWN), [text])
        assert whole == read(dialect.reader(KNOWN), list(text))
        for call in whole:
            seen["whole" if call.error is None else "errors"] += 1
            if call.error is None:
                assert find_error(KNOWN[0].parameters, call.arguments) is None
            json.dumps(call.arguments, ensure_ascii=False).encode()  # no half surrogates

    check()
    assert seen["whole"] >= EXAMPLES // 4
    assert seen["errors"] >= EXAMPLES // 4
