"""Tools and tool choices in the forms of OpenAI, Anthropic and the frameworks."""

from __future__ import annotations

from typing import Any

import pytest

from minicpm_core.tools import Choice, Tool, read_choice, read_tools

EMPTY = {"type": "object", "properties": {}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FORMS = [
    ({"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}, SCHEMA),
    ({"name": "f", "description": "d", "parameters": SCHEMA}, SCHEMA),
    ({"name": "f", "description": "d", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}, SCHEMA),
    ({"name": "f", "description": "d"}, EMPTY),
    ({"name": "f", "description": "d", "parameters": {}}, EMPTY),
    ({"type": "function", "function": {"name": "f", "description": "d", "parameters": None}}, EMPTY),
    (Tool("f", "d", SCHEMA), SCHEMA),
]


@pytest.mark.parametrize(("given", "parameters"), FORMS)
def test_tools_are_read_from_every_form(given: Any, parameters: Any):
    assert read_tools([given]) == (Tool("f", "d", parameters),)
    assert len(FORMS) == 7


def test_names_may_hold_dashes_dots_and_letters_of_all_scripts():
    names = ["get-weather", "a.b", "天気", "größe_2", "mcp__x/y", "ns:f", "१"]
    assert [tool.name for tool in read_tools([{"name": name} for name in names])] == names
    assert len(read_tools([{"name": f"t{n}"} for n in range(100)])) == 100
    assert read_tools(None) == () == read_tools([])


BAD_TOOLS: list[tuple[Any, str]] = [
    ("f", "a tool is a dict; given 'f'"),
    ({"description": "d"}, "a tool has a name"),
    ({"name": ""}, "tool name '' is empty"),
    ({"name": "a b"}, "tool name 'a b' holds ' '"),
    ({"name": 'a"b<'}, "holds '\"', '<'"),
    ({"name": "a\n"}, "holds '\\n'"),
    ({"type": "web_search_20250305", "name": None}, "a tool has a name"),
    ({"name": "f", "parameters": {"type": "string"}}, "parameters are a JSON schema of an object"),
    ({"name": "f", "parameters": [1]}, "parameters are a JSON schema of an object"),
    ({"name": "f", "parameters": {"properties": ["a"]}}, "properties are an object of schemas"),
    ({"name": "f", "parameters": {"properties": {"a<b": {}}}}, "parameter name 'a<b' holds '<'"),
    ({"name": "f", "parameters": {"properties": {"": {}}}}, "parameter name '' is empty"),
]


@pytest.mark.parametrize(("tool", "message"), BAD_TOOLS)
def test_other_tools_are_refused_with_what_was_given(tool: Any, message: str):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_tools([tool])
    assert message in str(error.value)
    assert len(BAD_TOOLS) == 12


def test_names_that_stand_twice_are_refused():
    with pytest.raises(ValueError, match="given more than once: a, b"):
        read_tools([{"name": name} for name in "abcab"])


TOOLS = read_tools([{"name": "f"}, {"name": "g"}])
CHOICES: list[tuple[Any, Choice]] = [
    (None, Choice("auto", TOOLS)),
    ("auto", Choice("auto", TOOLS)),
    ({"type": "auto"}, Choice("auto", TOOLS)),
    ("none", Choice("none", ())),
    (False, Choice("none", ())),
    ({"type": "none"}, Choice("none", ())),
    ("any", Choice("required", TOOLS)),
    ("required", Choice("required", TOOLS)),
    (True, Choice("required", TOOLS)),
    ({"type": "any"}, Choice("required", TOOLS)),
    ("g", Choice("required", TOOLS[1:])),
    ({"type": "function", "function": {"name": "g"}}, Choice("required", TOOLS[1:])),
    ({"type": "function", "name": "g"}, Choice("required", TOOLS[1:])),
    ({"type": "tool", "name": "f"}, Choice("required", TOOLS[:1])),
]


@pytest.mark.parametrize(("given", "choice"), CHOICES)
def test_choices(given: Any, choice: Choice):
    assert read_choice(given, TOOLS) == choice
    assert len(CHOICES) == 14


@pytest.mark.parametrize("given", ["h", {"type": "function", "function": {"name": "h"}}, {"type": "x"}, 1.5, ["f"], {}])
def test_unknown_choices_are_refused_with_the_tools(given: Any):
    if given == {}:
        assert read_choice({}, TOOLS) == Choice("auto", TOOLS)
        return
    with pytest.raises(ValueError, match="the tools are: f, g"):
        read_choice(given, TOOLS)


def test_a_required_call_needs_tools():
    with pytest.raises(ValueError, match="tool_choice is 'any', but no tools are given"):
        read_choice("any", ())
    with pytest.raises(ValueError, match="the tools are: none"):
        read_choice("f", ())
    assert read_choice(None, ()) == Choice("auto", ())
