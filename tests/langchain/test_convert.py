"""Every kind of LangChain message becomes the chat template's dicts."""

from __future__ import annotations

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_minicpm.convert import to_template

CALL = {"name": "add", "args": {"a": 1}, "id": "call-1"}
TEMPLATE_CALL = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
OPENAI_CALL = {"name": "add", "arguments": '{"a": 1}'}
TEXT = {"type": "text", "text": "Hi"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SystemMessage("Be kind."), {"role": "system", "content": "Be kind."}),
        (HumanMessage("Hi", name="Ann"), {"role": "user", "content": "Hi", "name": "Ann"}),
        (HumanMessage(["Hi", TEXT]), {"role": "user", "content": ["Hi", TEXT]}),
        (AIMessage("Yes"), {"role": "assistant", "content": "Yes"}),
        (AIMessageChunk("Yes"), {"role": "assistant", "content": "Yes"}),
        (
            AIMessage([{"type": "thinking", "thinking": "hm", "signature": "s"}, TEXT]),
            {"role": "assistant", "content": [TEXT]},
        ),
        (
            AIMessage(content_blocks=[{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Hi"}]),
            {"role": "assistant", "content": [TEXT]},
        ),
        (AIMessage("", tool_calls=[CALL]), {"role": "assistant", "content": "", "tool_calls": [TEMPLATE_CALL]}),
        (
            AIMessage([TEXT, {"type": "tool_use", "id": "call-1", "name": "add", "input": {"a": 1}}]),
            {"role": "assistant", "content": [TEXT], "tool_calls": [TEMPLATE_CALL]},
        ),
        (
            AIMessage(
                [{"type": "function_call", "name": "add", "arguments": '{"a": 1}', "call_id": "call-1", "id": "x"}]
            ),
            {"role": "assistant", "content": [], "tool_calls": [TEMPLATE_CALL]},
        ),
        (
            AIMessage(content_blocks=[{"type": "tool_call", **CALL}]),
            {"role": "assistant", "content": [], "tool_calls": [TEMPLATE_CALL]},
        ),
        (
            AIMessage("", additional_kwargs={"function_call": {"name": "add", "arguments": '{"a": 1}'}}),
            {"role": "assistant", "content": "", "tool_calls": [TEMPLATE_CALL | {"id": None}]},
        ),
        (
            AIMessage("", additional_kwargs={"tool_calls": [{**TEMPLATE_CALL, "function": OPENAI_CALL}]}),
            {"role": "assistant", "content": "", "tool_calls": [TEMPLATE_CALL]},
        ),
        (
            AIMessage("", invalid_tool_calls=[{"name": "add", "args": '{"a": ', "id": "call-1", "error": "cut"}]),
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [TEMPLATE_CALL | {"function": {"name": "add", "arguments": '{"a": '}}],
            },
        ),
        (
            ToolMessage([TEXT, PICTURE], tool_call_id="call-1", name="look", artifact={"not": "shown"}),
            {"role": "tool", "content": [TEXT, PICTURE], "name": "look", "tool_call_id": "call-1"},
        ),
        (
            ToolMessage("2", tool_call_id="call-1", name="add", status="error"),
            {"role": "tool", "content": "2", "name": "add", "tool_call_id": "call-1", "status": "error"},
        ),
        (FunctionMessage(content="2", name="add"), {"role": "tool", "content": "2", "name": "add"}),
        (ChatMessage("Hi", role="human"), {"role": "user", "content": "Hi"}),
        (ChatMessage("Hi", role="developer"), {"role": "system", "content": "Hi"}),
    ],
)
def test_a_message_becomes_a_dict_of_the_template(message: BaseMessage, expected: dict) -> None:
    assert to_template([message]) == [expected]


def test_a_result_without_a_name_gets_that_of_its_call() -> None:
    turns = to_template([AIMessage("", tool_calls=[CALL]), ToolMessage("2", tool_call_id="call-1")])
    assert turns[1] == {"role": "tool", "content": "2", "tool_call_id": "call-1", "name": "add"}


def test_results_inside_a_users_message_become_turns_of_their_own() -> None:
    result = {"type": "tool_result", "tool_use_id": "call-1", "content": [TEXT], "is_error": True}
    call = AIMessage([{"type": "tool_use", "id": "call-1", "name": "add", "input": {"a": 1}}])
    _, result_turn, rest = to_template([call, HumanMessage([result, TEXT])])
    assert result_turn == {
        "role": "tool",
        "content": [TEXT],
        "tool_call_id": "call-1",
        "status": "error",
        "name": "add",
    }
    assert rest == {"role": "user", "content": [TEXT]}
    assert len(to_template([call, HumanMessage([result])])) == 2


def test_a_picture_stays_in_its_place_for_the_engine_to_judge() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert to_template([HumanMessage([TEXT, picture, TEXT])])[0]["content"] == [TEXT, picture, TEXT]


def test_a_message_that_is_no_turn_is_refused() -> None:
    with pytest.raises(TypeError, match=r"RemoveMessage.*accepted: SystemMessage"):
        to_template([RemoveMessage(id="1")])
