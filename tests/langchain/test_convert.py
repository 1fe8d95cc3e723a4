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
TEXT = {"type": "text", "text": "Hi"}


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


def test_a_picture_stays_in_its_place_for_the_engine_to_judge() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert to_template([HumanMessage([TEXT, picture, TEXT])])[0]["content"] == [TEXT, picture, TEXT]


def test_a_message_that_is_no_turn_is_refused() -> None:
    with pytest.raises(TypeError, match=r"RemoveMessage.*accepted: SystemMessage"):
        to_template([RemoveMessage(id="1")])
