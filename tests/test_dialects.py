"""The dialects: what each grammar takes, what each writer writes and what each reader makes of it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from minicpm_core.dialects import DIALECTS, HERMES, JSON, MINICPM5, PYTHON, QWEN3_CODER, Dialect
from minicpm_core.dialects.python_calls import python_names
from minicpm_core.tools import read_tools
from tests.toy_grammars import accepted, byte_tokens, demo_tokens, grammar_of, read

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "from": {"type": ["string", "null"]},
        "unit": {"enum": ["c", "f<", "null", None]},
        "first name": {"anyOf": [{"type": "integer", "maximum": 9}, {"type": "string"}]},
        "größe": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "opts": {
            "type": "object",
            "properties": {"deep": {"type": "boolean"}, "next": {"$ref": "#"}, "x": {"type": ["number", "null"]}},
        },
        "day": {"type": "string", "format": "date"},
        "code": {"type": ["string", "null"], "pattern": "^[A-Z]{2}$"},
    },
    "required": ["city"],
}
TOOLS = read_tools(
    [
        {"name": "get-weather", "description": "Weather of a city", "parameters": PARAMETERS},
        {"name": "noop"},
        {"name": "天気.v2", "input_schema": {"type": "object", "additionalProperties": {"type": "integer"}}},
    ]
)
CALLS: list[Any] = [
    ("get-weather", {"city": "北京"}),
    (
        "get-weather",
        {"city": "a<b & \"c\"\\ \n\t'd' 😀 é", "from": "null", "unit": "f<", "tags": ["<a>&\n", "]]>", "]"]},
    ),
    ("get-weather", {"city": " x ", "from": None, "unit": None, "first name": 5, "größe": -1.25}),
    ("get-weather", {"city": "x", "from": "[1, 2]", "unit": "null", "first name": "5", "größe": 12}),
    ("get-weather", {"city": "x", "from": '"q"', "first name": "12", "opts": {"deep": True, "x": None}}),
    ("get-weather", {"city": "x", "from": "", "tags": [], "opts": {}, "day": "2024-02-28", "code": "DE"}),
    ("noop", {}),
    ("天気.v2", {"n": 1, "m": 2}),
]


@pytest.mark.parametrize("tokens", [demo_tokens, byte_tokens], ids=["demo", "bytes"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_the_grammar_takes_what_the_writer_writes_and_the_reader_returns_it(dialect: Dialect, tokens: Any):
    grammar = grammar_of(dialect, TOOLS, tokens(), 4000, True)
    text = dialect.write_calls(CALLS, TOOLS)
    assert accepted(grammar, text, tokens()) == ""
    assert text.startswith(dialect.opening)
    for parts in ([text], list(text), [text[:50], text[50:]]):
        calls = read(dialect.reader(TOOLS), parts)
        assert [(call.name, call.arguments, call.error) for call in calls] == [(*call, None) for call in CALLS]
    assert len(DIALECTS) == 5
    assert len(CALLS) == 8


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_one_call_or_up_to_eight(dialect: Dialect):
    one = grammar_of(dialect, TOOLS, demo_tokens(), 400, False)
    several = grammar_of(dialect, TOOLS, demo_tokens(), 400, True)
    takes = [
        [accepted(grammar, dialect.write_calls([("noop", {})] * count), demo_tokens()) == "" for count in (1, 2, 8, 9)]
        for grammar in (one, several)
    ]
    assert takes == [[True, False, False, False], [True, True, True, False]]
    assert accepted(one, dialect.write_calls([("unknown", {})]), demo_tokens()) != ""


SYNTAX = {
    "minicpm5": '<function name="f"><param name="s">a<param name="n">'.replace("a<param", "a</param><param")
    + "1</param></function>",
    "python": '<|tool_call_start|>\n```python\nf(s="a", n=1)\n```\n<|tool_call_end|>',
    "qwen3_coder": "<tool_call>\n<function=f>\n<parameter=s>\na\n</parameter>\n<parameter=n>\n1\n</parameter>\n"
    "</function>\n</tool_call>",
    "hermes": '<tool_call>\n{"name": "f", "arguments": {"s": "a", "n": 1}}\n</tool_call>',
    "json": '{"name": "f", "arguments": {"s": "a", "n": 1}}',
}
SIMPLE = read_tools(
    [
        {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {"s": {"type": "string"}, "n": {"type": "integer"}, "o": {"type": "object"}},
                "required": ["s"],
            },
        }
    ]
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_the_syntax_is_the_families_own(dialect: Dialect):
    assert dialect.write_call("f", {"s": "a", "n": 1}) == SYNTAX[dialect.name]
    assert dialect.write_calls([("f", {"s": "a", "n": 1})], SIMPLE) == SYNTAX[dialect.name]


def test_rows_say_how_results_and_thoughts_are_written():
    rows = [(row.name, row.opening, row.result_role, row.write_result("f", "r"), row.thought) for row in DIALECTS]
    response = "<tool_response>\nr\n</tool_response>"
    assert rows == [
        ("minicpm5", "<function", "user", response, None),
        ("python", "<|tool_call_start|>", "tool", "r", ("<|thought_start|>", "<|thought_end|>")),
        ("qwen3_coder", "<tool_call>", "user", response, None),
        ("hermes", "<tool_call>", "user", response, None),
        ("json", '{"name":', "user", response, None),
    ]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_names_come_first_and_strings_as_they_are_written(dialect: Dialect):
    text = dialect.write_call("f", {"s": "hello world", "n": 12})
    reader = dialect.reader(SIMPLE)
    pieces = [piece for sign in text for piece in reader.push(sign)]
    assert pieces[0].name == "f"
    assert pieces[0].text == ""
    assert all(sign in [piece.text for piece in pieces] for sign in "ewrd"), "letters stream one by one"
    assert "".join(piece.text for piece in pieces) == '{"s": "hello world", "n": 12}'
    assert [piece.arguments for piece in pieces if piece.arguments] == [{"s": "hello world", "n": 12}]
    assert reader.flush() == []
    at = text.index("hello") + 5
    early = dialect.reader(SIMPLE)
    assert "".join(piece.text for piece in early.push(text[:at])) == '{"s": "hello', "nothing certain is held back"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_a_call_that_is_cut_off_is_an_error_wherever_it_is_cut(dialect: Dialect):
    text = dialect.write_call("f", {"s": "a<b\nc", "n": 1, "o": {"k": [1, "x"]}}, SIMPLE)
    whole = len(text) - len("\n```\n<|tool_call_end|>") if dialect is PYTHON else len(text)
    checked = 0
    for end in range(len(dialect.opening), whole):
        (call,) = read(dialect.reader(SIMPLE), [text[:end]]) or [None]
        if call is None:
            assert dialect is PYTHON, "only the fence may stand without a call"
            continue
        assert (call.arguments, call.error) == (None, "the call was cut off before its end"), text[:end]
        checked += 1
    assert checked > 40
    (call,) = read(dialect.reader(SIMPLE), [text])
    assert call.arguments == {"s": "a<b\nc", "n": 1, "o": {"k": [1, "x"]}}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_errors_are_reported_with_the_text_and_later_calls_are_read(dialect: Dialect):
    bad = [
        ("g", {"s": "a"}, "there is no tool 'g'; the tools are: f"),
        ("f", {"s": "a", "zz": 1}, "tool f has no parameter 'zz'; its parameters are: s, n, o"),
        ("f", {"n": 1}, "'s' is a required property"),
        ("f", {"s": "a", "n": 1.5}, "n: 1.5 is not of type 'integer'"),
    ]
    for name, given, error in bad:
        text = dialect.write_calls([(name, given), ("f", {"s": "later"})])
        first, second = read(dialect.reader(SIMPLE), [text])
        assert first.error == error
        assert (second.arguments, second.error) == ({"s": "later"}, None)
        if name == "g":
            assert '"a"' in first.text or ">a<" in first.text or "\na\n" in first.text
    assert len(bad) == 4


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_text_after_the_calls_is_kept(dialect: Dialect):
    text = dialect.write_call("f", {"s": "a"}) + "\n  and words < f\n"
    for parts in ([text], list(text)):
        reader = dialect.reader(SIMPLE)
        assert len(read(reader, parts)) == 1
        assert reader.rest == "and words < f"


MINICPM5_TEXTS = [
    ('<functionname="f"><paramname="s">a</param></function>', {"s": "a"}),
    ("<function\u0120name='f'>\n <param\u0120name='s'>a</param>\n</function>", {"s": "a"}),
    ('<function name="f"><arguments><param name="s">a</param></arguments></function>', {"s": "a"}),
    ('<function name="f"><param name="s"><![CDATA[a]]]]><![CDATA[>b]]></param></function>', {"s": "a]]>b"}),
    ('<function name="f"><param name="s"><![CDATA[</param>]]>\n</param></function>', {"s": "</param>"}),
    ('<function name="f"><param name="s">1 < 2</param></function>', {"s": "1 < 2"}),
    (
        '<function name="f"><param name="s"></param><param name="o">{\'a\': None}</param></function>',
        {"s": "", "o": {"a": None}},
    ),
    (
        '<function name="f"><param name="s">a</param><param name="o"><![CDATA[{"a": "<"}]]></param></function>',
        {"s": "a", "o": {"a": "<"}},
    ),
]
PYTHON_TEXTS = [
    ("f('a', 5)", {"s": "a", "n": 5}),
    ("f(\n  s='it\\'s \\x41\\u00e9\\N{BULLET}\\101',\n  n=-5,\n)", {"s": "it's Aé•A", "n": -5}),
    ('f(s="""a "b"\nc""", o={"k": (1, [True, null, {}])})', {"s": 'a "b"\nc', "o": {"k": [1, [True, None, {}]]}}),
    ('f(s="\\ud83d\\ude00 \\ud83d", o={"x": "\\ud83d\\ude00"})', {"s": "😀 \ufffd", "o": {"x": "\ufffd\ufffd"}}),
    ("f(s='', o={'a, b)': ')'})", {"s": "", "o": {"a, b)": ")"}}),
    ("f(n=1, s=r'a')", {"n": 1, "s": "a"}),
]
QWEN_TEXTS = [
    ("<parameter=s>\n</param>\n\n<b>\n</parameter>", {"s": "</param>\n\n<b>"}),
    ("<parameter=s>\n\n</parameter>\n<parameter=o>\n{'a': True}\n</parameter>", {"s": "", "o": {"a": True}}),
]
JSON_TEXTS = [
    ('{"s": "a\\/b\\u00e9\\ud83d\\ude00\\ud83d", "n": 1}', {"s": "a/bé😀\ufffd", "n": 1}),
    ('{ "s" : "" ,"o":{"a":[1.50 , {"b":"}"}]} }', {"s": "", "o": {"a": [1.5, {"b": "}"}]}}),
]
OTHER_FORMS = [
    *[(MINICPM5, text, given) for text, given in MINICPM5_TEXTS],
    *[
        (PYTHON, f"<|tool_call_start|>\n```python\n{text}\n```\n<|tool_call_end|>", given)
        for text, given in PYTHON_TEXTS
    ],
    *[(PYTHON, f"<|tool_call_start|>{text}<|tool_call_end|>", given) for text, given in PYTHON_TEXTS],
    *[
        (QWEN3_CODER, f"<tool_call>\n<function=f>\n{text}\n</function>\n</tool_call>", given)
        for text, given in QWEN_TEXTS
    ],
    *[(HERMES, f'<tool_call>{{"name":"f","arguments":{text}}}</tool_call>', given) for text, given in JSON_TEXTS],
    *[(JSON, f'{{"name":"f", "arguments" : {text}\n}}', given) for text, given in JSON_TEXTS],
]


@pytest.mark.parametrize(("dialect", "text", "arguments"), OTHER_FORMS)
def test_other_forms_that_models_write_are_read(dialect: Dialect, text: str, arguments: Any):
    for parts in ([text], list(text)):
        (call,) = read(dialect.reader(SIMPLE), parts)
        assert (call.arguments, call.error) == (arguments, None)
    assert len(OTHER_FORMS) == 26


REFUSED = [
    (
        MINICPM5,
        '<function name="f"><param name="s">a</param><param name="s">b</param></function>',
        "parameter s stands twice",
    ),
    (MINICPM5, "<function foo></function>", "name=\"...\" expected in a tag, found ' foo'"),
    (PYTHON, "f(s='a', s='b')", "parameter s stands twice"),
    (PYTHON, "f('a', 1, {}, 4)", "tool f takes 3 parameters"),
    (PYTHON, "f(s=__import__('os').system('touch /tmp/evil'))", "is no literal: only strings"),
    (PYTHON, "f(s=f'{open(1)}')", "is no literal: only strings"),
    (PYTHON, "f(s='a', n=9**9**9)", "is no literal: only strings"),
    (PYTHON, "f(s='a', o={'k': 1, 'k': 2})", "keys are strings that stand once"),
    (PYTHON, "f(s='a', n=1e999)", "infinity is no JSON"),
    (PYTHON, "f(s='\\N{no such}')", "is no escape in Python"),
    (PYTHON, "import os", "'(' expected, found 'o'"),
    (HERMES, '<tool_call>{"name":"f","arguments":{"s":"a","s":"b"}}</tool_call>', "parameter s stands twice"),
    (HERMES, '<tool_call>{"name":"f","arguments":{"o":{"k":1,"k":2}}}</tool_call>', "a key stands twice in an object"),
    (HERMES, '<tool_call>{"name":"f","arguments":{"n":NaN}}</tool_call>', "NaN is no JSON"),
    (HERMES, '<tool_call>{"name":"f","arguments":{"n":1e999}}</tool_call>', "the value is no JSON"),
    (HERMES, '<tool_call>{"arguments":{}}</tool_call>', "'\"name\"' expected, found"),
    (JSON, '{"name":"f","arguments":{"s":"\\q"}}', "is no escape in JSON"),
    (
        QWEN3_CODER,
        "<tool_call>\n<function=f>\nwords\n</function>\n</tool_call>",
        "'<parameter=' or '</function>' expected, found 'w'",
    ),
]


@pytest.mark.parametrize(("dialect", "text", "error"), REFUSED)
def test_what_cannot_be_read_is_an_error_and_never_evaluated(dialect: Dialect, text: str, error: str):
    whole = f"<|tool_call_start|>\n```python\n{text}\n```\n<|tool_call_end|>" if dialect is PYTHON else text
    for parts in ([whole], list(whole)):
        (call,) = read(dialect.reader(SIMPLE), parts)
        assert call.arguments is None
        assert call.error is not None
        assert error in call.error
    assert len(REFUSED) == 18


def test_python_names_stand_for_every_name():
    names = ["from", "x-y", "x_y", "x.y", "1st", "größe", "城市", "ﬁle", "None", "first name"]
    assert python_names(names) == {
        "from": "from_",
        "x-y": "x_y",
        "x_y": "x_y_",
        "x.y": "x_y__",
        "1st": "_1st",
        "größe": "größe",
        "城市": "城市",
        "ﬁle": "file",
        "None": "None_",
        "first name": "first_name",
    }


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_a_megabyte_is_read_in_linear_time(dialect: Dialect):
    start = dialect.write_call("f", {"s": "@"}).split("@")[0]
    other = dialect.write_call("f", {"o": {}}, SIMPLE).split("{}")[0]
    size = 1_000_000
    texts = [
        start + sign * ((size if sign in "x[" else size // 10) // len(sign))
        for sign in ("x", "<", "[", '\\"', "\\n", "'", "<![CDATA[", "</param>", "\\ud83d", dialect.opening)
    ]
    texts += [other + sign * (size // 10) for sign in ("[],", "-", '"', "{")]
    texts += [other + "[" * size, dialect.opening * 10_000]
    for text in texts:
        begin = time.process_time()
        reader = dialect.reader(SIMPLE)
        calls = reader.push(text) + reader.flush()
        assert time.process_time() - begin < 8, text[:100]
        assert all(call.arguments is None for call in calls if call.error)
    assert len(texts) == 16


def test_a_hundred_tools_with_nested_schemas_compile_quickly():
    from llguidance import LLMatcher

    tools = read_tools([{"name": f"tool_{n}", "parameters": {**PARAMETERS, "title": str(n)}} for n in range(100)])
    for dialect in DIALECTS:
        begin = time.process_time()
        grammar = grammar_of(dialect, tools, demo_tokens(), 4000, True)
        matcher = LLMatcher(demo_tokens().guidance, grammar)
        assert not matcher.is_error(), matcher.get_error()
        assert time.process_time() - begin < 2, dialect.name


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_system_texts_name_the_tools_and_the_form(dialect: Dialect):
    text = dialect.write_tools(TOOLS)
    if dialect is PYTHON:
        assert "def get_weather(city: str, from_: str | None = ..., unit: Literal" in text
        assert '"""Weather of a city"""' in text
    else:
        lines = text.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
        assert [json.loads(line)["name"] for line in lines] == ["get-weather", "noop", "天気.v2"]
        assert json.loads(lines[0])["parameters"] == PARAMETERS
    assert dialect.opening in text


def test_text_that_another_branch_does_not_allow_stays_text():
    values = []
    for text in ("9", "12", '"9"', "x", "[9]"):
        start = '<function name="get-weather"><param name="city">a</param><param name="first name">'
        call = f"{start}{text}</param></function>"
        (found,) = read(MINICPM5.reader(TOOLS), [call])
        assert found.error is None
        values.append((found.arguments or {})["first name"])
    assert values == [9, "12", "9", "x", "[9]"]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda row: row.name)
def test_a_required_string_is_not_empty(dialect: Dialect):
    grammar = grammar_of(dialect, TOOLS, demo_tokens(), 400, False)
    takes = [
        accepted(grammar, dialect.write_calls([("get-weather", {"city": city})], TOOLS), demo_tokens()) == ""
        for city in ("", "a")
    ]
    assert takes == [False, True]
