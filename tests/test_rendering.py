"""Tools, calls and results reach the prompt: by the chat template where it renders them, by the dialect where not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from minicpm_core.chat_templates import LLAMA3_TEMPLATE, PLAIN_CHATML_TEMPLATE, ROLES_TEMPLATE
from minicpm_core.dialects import DIALECTS, HERMES, JSON, MINICPM5, PYTHON, QWEN3_CODER
from minicpm_core.rendering import SCHEMA_TEXT, TemplateSkills, add_to_system, lay_out, read_skills
from minicpm_core.tools import read_tools

DEMO = (Path(__file__).parents[1] / "minicpm_core" / "demo" / "chat_template.jinja").read_text(encoding="utf-8")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = read_tools([{"name": "get_weather", "description": "Weather of a city.", "parameters": PARAMETERS}])
CALL = {"id": "7", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Bonn"}}}
HISTORY = [
    {"role": "user", "content": "Weather in Bonn?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "12 °C", "tool_call_id": "7"},
]
WRITTEN = {
    "minicpm5": '<function name="get_weather"><param name="city">Bonn</param></function>',
    "python": '<|tool_call_start|>\n```python\nget_weather(city="Bonn")\n```\n<|tool_call_end|>',
    "qwen3_coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\nBonn\n</parameter>\n"
    "</function>\n</tool_call>",
    "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bonn"}}\n</tool_call>',
    "json": '{"name": "get_weather", "arguments": {"city": "Bonn"}}',
}


def test_what_a_template_renders_is_read_from_its_names() -> None:
    assert read_skills(DEMO) == TemplateSkills(tools=True, calls=True, results=True)
    for template in (PLAIN_CHATML_TEMPLATE, ROLES_TEMPLATE, LLAMA3_TEMPLATE):
        assert read_skills(template) == TemplateSkills(tools=False, calls=False, results=False)
    by_key = "{% for m in messages %}{{ m['tool_calls'] }}{% endfor %}"
    assert read_skills(by_key) == TemplateSkills(tools=False, calls=True, results=False)
    in_text = "{{ 'no tools, no tool_calls' }}"
    assert read_skills(in_text) == TemplateSkills(tools=False, calls=False, results=False)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_plain_template_gets_everything_as_text(dialect: Any) -> None:
    laid, tools = lay_out(HISTORY, TOOLS, None, dialect, PLAIN_CHATML_TEMPLATE)
    assert tools is None
    assert [message["role"] for message in laid] == ["system", "user", "assistant", dialect.result_role]
    assert "get_weather" in laid[0]["content"]
    assert "Weather of a city." in laid[0]["content"]
    assert laid[2] == {"role": "assistant", "content": WRITTEN[dialect.name]}
    assert "12 °C" in laid[3]["content"]
    assert HISTORY[1]["tool_calls"] == [CALL]  # what the caller gave stays as it is


def test_the_dialects() -> None:
    assert [dialect.name for dialect in (MINICPM5, PYTHON, QWEN3_CODER, HERMES, JSON)] == list(WRITTEN)
    assert set(DIALECTS) == {MINICPM5, PYTHON, QWEN3_CODER, HERMES, JSON}


def test_a_template_with_tools_renders_them_itself() -> None:
    laid, tools = lay_out(HISTORY, TOOLS, None, MINICPM5, DEMO)
    assert [message["role"] for message in laid] == ["user", "assistant", "tool"]
    assert laid[1]["tool_calls"] == [CALL]
    assert laid[2]["name"] == "get_weather"
    function = {"name": "get_weather", "description": "Weather of a city.", "parameters": PARAMETERS}
    assert tools == [{"type": "function", "function": function}]


@pytest.mark.parametrize("arguments", ['{"city": "Bonn"}', {"city": "Bonn"}])
def test_arguments_as_text_are_read(arguments: Any) -> None:
    call = {"id": "7", "function": {"name": "get_weather", "arguments": arguments}}
    laid, _ = lay_out([{"role": "assistant", "content": "Well.", "tool_calls": [call]}], TOOLS, None, MINICPM5, DEMO)
    assert laid[0]["tool_calls"][0]["function"]["arguments"] == {"city": "Bonn"}
    plain, _ = lay_out([{"role": "assistant", "content": "Well.", "tool_calls": [call]}], (), None, HERMES, "")
    assert plain[0]["content"] == "Well.\n" + WRITTEN["hermes"]


def test_a_call_that_cannot_be_read_is_shown_as_it_stands() -> None:
    call = {"id": "7", "function": {"name": "get_weather", "arguments": '{"city": "Bo'}}
    laid, _ = lay_out([{"role": "assistant", "content": "Well.", "tool_calls": [call]}], TOOLS, None, MINICPM5, DEMO)
    assert laid == [{"role": "assistant", "content": 'Well.\nget_weather {"city": "Bo'}]


@pytest.mark.parametrize(
    ("content", "shown"),
    [("no such city", "Error: no such city"), ("ValueError: no city", "ValueError: no city"), ("", "Error:")],
)
def test_a_failed_result_says_so(content: str, shown: str) -> None:
    failed = [*HISTORY[:2], {"role": "tool", "content": content, "tool_call_id": "7", "status": "error"}]
    assert lay_out(failed, TOOLS, None, MINICPM5, DEMO)[0][2]["content"] == shown
    assert shown in lay_out(failed, TOOLS, None, JSON, ROLES_TEMPLATE)[0][3]["content"]


def test_a_result_with_pictures_keeps_them_in_their_place() -> None:
    picture = Image.new("RGB", (2, 2))
    seen = [*HISTORY[:2], {"role": "tool", "content": ["before", picture, "after"], "tool_call_id": "7"}]
    assert lay_out(seen, TOOLS, None, HERMES, DEMO)[0][2]["content"] == ["before", picture, "after"]
    content = lay_out(seen, TOOLS, None, HERMES, PLAIN_CHATML_TEMPLATE)[0][3]["content"]
    assert content[1:4] == ["before", picture, "after"]
    assert "\n".join([content[0], content[4]]) == HERMES.write_result("get_weather", "\n")


def test_the_schema_of_the_answer_is_told_at_the_end_of_the_system_message() -> None:
    system = {"role": "system", "content": "Be brief."}
    laid, _ = lay_out([system, *HISTORY[:1]], (), PARAMETERS, JSON, PLAIN_CHATML_TEMPLATE)
    assert laid[0]["content"] == "Be brief.\n\n" + SCHEMA_TEXT.format(schema=json.dumps(PARAMETERS))
    assert system == {"role": "system", "content": "Be brief."}
    assert add_to_system(HISTORY[:1], "x") == [{"role": "system", "content": "x"}, HISTORY[0]]
