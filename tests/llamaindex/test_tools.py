"""Tools: what the engine is asked, and what responses tell of its calls, whole, growing and invalid."""

import asyncio
import logging
import math
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    LogProb,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.tools import FunctionTool

from llamaindex_minicpm import MiniCPM, MiniCPMLLM
from llamaindex_minicpm.convert import to_messages
from llamaindex_minicpm.tools import to_tools
from minicpm_core.types import Chunk, TokenLogprob, ToolCall
from tests.llamaindex.scripted import ScriptedEngine, end, pieces


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(add)
HELLO = [ChatMessage(role="user", content="hello")]
ONE = [*pieces("call_1", "add", {"a": 1, "b": 2}), end("tool_calls")]
CUT = [
    Chunk(tool_calls=(ToolCall("call_9", "add"),)),
    Chunk(tool_calls=(ToolCall("call_9", text='{"a": 1', error="cut off by max_tokens"),)),
    end("length"),
]


def scripted(*answers: list[Chunk], **options: Any) -> tuple[MiniCPM, ScriptedEngine]:
    engine = ScriptedEngine(*answers)
    return MiniCPM(engine=engine, **options), engine


def test_tools_are_given_in_openais_form_under_their_own_names() -> None:
    class Search(BaseModel):
        """Search the web."""

        query: str = Field(min_length=1)

    chinese = FunctionTool.from_defaults(add, name="加法", description="x" * 2000)
    plain = {"name": "raw", "description": "", "parameters": {"type": "object"}}
    tools = to_tools([ADD, chinese, add, Search, plain])
    assert [tool.get("function", tool)["name"] for tool in tools] == ["add", "加法", "add", "Search", "raw"]
    assert tools[0]["function"] == tools[2]["function"]
    assert set(tools[0]["function"]["parameters"]["properties"]) == {"a", "b"}
    assert tools[1]["function"]["description"] == "x" * 2000
    assert tools[3]["function"]["description"] == "Search the web."
    assert tools[3]["function"]["parameters"]["properties"]["query"]["minLength"] == 1
    assert tools[4] == plain
    with pytest.raises(ValueError, match="3 is no tool; accepted: LlamaIndex tools"):
        to_tools([3])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"tool_required": True}, "any"),
        ({"tool_required": True, "tool_choice": "auto"}, "any"),
        ({"tool_required": True, "tool_choice": "add"}, "add"),
        ({"tool_choice": "none"}, "none"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "add"}}},
            {"type": "function", "function": {"name": "add"}},
        ),
    ],
)
def test_choice_of_a_tool(given: dict[str, Any], expected: Any) -> None:
    llm, engine = scripted(ONE)
    llm.chat_with_tools([ADD], user_msg="1 + 2", **given)
    ((messages, options),) = engine.asked
    assert messages == [{"role": "user", "content": "1 + 2"}]
    assert options.get("tool_choice") == expected
    assert [tool["function"]["name"] for tool in options["tools"]] == ["add"]


def test_required_and_forbidden_at_once_is_refused() -> None:
    llm, engine = scripted(ONE)
    with pytest.raises(ValueError, match="tool_required asks for a tool call"):
        llm.chat_with_tools([ADD], user_msg="hello", tool_required=True, tool_choice="none")
    assert engine.asked == []


def test_the_constructors_choice_holds_for_calls_with_tools_only() -> None:
    llm, engine = scripted([end(content="hi")], tool_choice="any", parallel_tool_calls=False, grammar="start: /a/")
    llm.chat_with_tools([ADD], user_msg="hello", allow_parallel_tool_calls=True)
    llm.chat(HELLO, tools=[add])
    llm.chat(HELLO)
    llm.chat(HELLO, response_schema={"type": "object"})
    llm.chat(HELLO, tools=[add], tool_choice="auto", parallel_tool_calls=True)
    names = ("tool_choice", "parallel_tool_calls", "grammar")
    assert [tuple(options.get(name) for name in names) for _, options in engine.asked] == [
        ("any", False, None),
        ("any", False, None),
        (None, None, "start: /a/"),
        (None, None, None),
        ("auto", True, None),
    ]


def test_parallel_calls_are_asked_for_as_llamaindex_says() -> None:
    llm, engine = scripted(ONE)
    llm.chat_with_tools([ADD], user_msg="hello")
    list(llm.stream_chat_with_tools([ADD], user_msg="hello", allow_parallel_tool_calls=True))
    assert [options["parallel_tool_calls"] for _, options in engine.asked] == [False, True]


async def test_a_call_is_a_block_a_selection_and_openais_dict() -> None:
    llm, _ = scripted(ONE)
    expected = ChatMessage(
        role="assistant",
        blocks=[ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs={"a": 1, "b": 2})],
        additional_kwargs={
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
            ]
        },
    )
    for response in (
        llm.chat_with_tools([ADD], user_msg="1 + 2"),
        await llm.achat_with_tools([ADD], user_msg="1 + 2"),
        list(llm.stream_chat_with_tools([ADD], user_msg="1 + 2"))[-1],
    ):
        assert response.message == expected
        assert response.raw["finish_reason"] == "tool_calls"
        (selection,) = llm.get_tool_calls_from_response(response)
        assert selection.model_dump() == {"tool_id": "call_1", "tool_name": "add", "tool_kwargs": {"a": 1, "b": 2}}


async def test_streams_tell_fragments_and_only_whole_calls() -> None:
    two = [*pieces("call_1", "add", {"a": 1, "b": 2}), *pieces("call_2", "add", {"a": 3, "b": 4}, 1), end("tool_calls")]
    llm, _ = scripted([Chunk(content="I add. "), *two])
    responses = list(llm.stream_chat_with_tools([ADD], user_msg="hello", allow_parallel_tool_calls=True))
    others = await llm.astream_chat_with_tools([ADD], user_msg="hello", allow_parallel_tool_calls=True)
    assert [response async for response in others] == responses
    counts = [len(llm.get_tool_calls_from_response(r, error_on_no_tool_call=False)) for r in responses]
    assert counts == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert [response.delta for response in responses] == ["I add. ", *[""] * 9]
    assert {response.message.content for response in responses} == {"I add. "}
    deltas = [delta for response in responses for delta in response.additional_kwargs.get("tool_call_deltas", [])]
    assert deltas[0] == {"index": 0, "id": "call_1", "name": "add", "arguments": ""}
    assert "".join(delta["arguments"] for delta in deltas if delta["id"] == "call_2") == '{"a": 3, "b": 4}'
    assert "tool_call_deltas" not in llm.chat(HELLO).additional_kwargs


def test_reasoning_text_and_calls_stand_in_their_order() -> None:
    llm, _ = scripted([Chunk(reasoning="hm"), Chunk(content="ok"), *ONE])
    blocks = llm.chat_with_tools([ADD], user_msg="hello").message.blocks
    assert [type(block) for block in blocks] == [ThinkingBlock, TextBlock, ToolCallBlock]


def test_invalid_calls_are_told_and_never_selected(caplog: pytest.LogCaptureFixture) -> None:
    llm, _ = scripted(CUT)
    response = llm.chat_with_tools([ADD], user_msg="hello")
    assert response.message.additional_kwargs == {
        "invalid_tool_calls": [
            {"id": "call_9", "name": "add", "arguments": '{"a": 1', "error": "cut off by max_tokens"}
        ]
    }
    assert not [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    with caplog.at_level(logging.WARNING):
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    assert "not executed" in caplog.text
    with pytest.raises(ValueError, match=r"no tool call; .*add: cut off by max_tokens; its arguments: .*\"a\": 1"):
        llm.get_tool_calls_from_response(response)


def test_a_call_against_its_schema_is_invalid_although_it_is_whole() -> None:
    llm, _ = scripted([*pieces("call_1", "add", {"a": 1, "b": 1}, error="a: not unique"), end("tool_calls")])
    response = llm.chat_with_tools([ADD], user_msg="hello")
    assert response.message.additional_kwargs["invalid_tool_calls"][0]["error"] == "a: not unique"
    assert "tool_calls" not in response.message.additional_kwargs
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_predict_and_call_executes_valid_calls_only(asynchronous: bool) -> None:
    called: list[tuple[int, int]] = []

    def add(a: int, b: int) -> int:
        """Add."""
        called.append((a, b))
        return a + b

    def predict(llm: MiniCPM, **options: Any) -> Any:
        given = [FunctionTool.from_defaults(add)], "hello"
        return (
            asyncio.run(llm.apredict_and_call(*given, **options))
            if asynchronous
            else llm.predict_and_call(*given, **options)
        )

    assert predict(scripted(ONE)[0]).response == "3"
    assert called.pop() == (1, 2)
    half = [*pieces("call_1", "add", {"a": 1, "b": 2}), *CUT]
    with pytest.raises(ValueError, match="calls that cannot be executed: add: cut off"):
        predict(scripted(half)[0], allow_parallel_tool_calls=True)
    assert called == []
    response = predict(scripted(half)[0], allow_parallel_tool_calls=True, error_on_invalid_tool_call=False)
    assert (response.response, called) == ("3", [(1, 2)])
    with pytest.raises(ValueError, match="no tool call; it says 'hi'"):
        predict(scripted([end(content="hi")])[0])


def test_calls_of_other_forms_are_read_and_half_ones_left_out() -> None:
    llm, _ = scripted(ONE)

    def select(**message: Any) -> list[tuple[str, dict[str, Any]]]:
        response = ChatResponse(message=ChatMessage(role="assistant", **message))
        found = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        assert all(call.tool_id for call in found)
        assert len({call.tool_id for call in found}) == len(found)
        return [(call.tool_name, call.tool_kwargs) for call in found]

    openai = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    half = {"id": "2", "type": "function", "function": {"name": "add", "arguments": '{"a": '}}
    assert select(additional_kwargs={"tool_calls": [openai, half, {"id": "3"}, "x"]}) == [("add", {"a": 1})]
    blocks = [ToolCallBlock(tool_name="add", tool_kwargs=value) for value in ('{"a": 2}', '{"a', {"a": 3}, "[1]")]
    assert select(blocks=blocks) == [("add", {"a": 2}), ("add", {"a": 3})]
    assert select(content="") == []


def test_histories_of_all_forms_are_converted_and_nothing_is_dropped() -> None:
    own = scripted([*ONE[:-1], *CUT])[0].chat(HELLO).message
    image = ImageBlock(image=b"iVBORw0KGgo=", image_mimetype="image/png")
    history = [
        own,
        ChatMessage(role="tool", blocks=[TextBlock(text="a"), image], additional_kwargs={"tool_call_id": "call_1"}),
        ChatMessage(role="tool", content="no", additional_kwargs={"tool_call_id": "call_9", "is_error": True}),
        ChatMessage(role="tool", blocks=[], additional_kwargs={"tool_call_id": "x", "status": "error", "name": "add"}),
    ]
    before = [message.model_dump() for message in history]
    call, picture, error, empty = to_messages(history)
    assert [c["function"] for c in call["tool_calls"]] == [
        {"name": "add", "arguments": {"a": 1, "b": 2}},
        {"name": "add", "arguments": '{"a": 1'},
    ]
    assert [c["id"] for c in call["tool_calls"]] == ["call_1", "call_9"]
    assert [part["type"] for part in picture["content"]] == ["text", "image"]
    assert error == {"role": "tool", "content": "no", "tool_call_id": "call_9", "status": "error"}
    assert empty == {"role": "tool", "content": "", "tool_call_id": "x", "name": "add", "status": "error"}
    assert [message.model_dump() for message in history] == before


def test_tokens_of_tools_are_counted() -> None:
    llm, engine = scripted(ONE)
    assert llm.count_tokens(HELLO, tools=[add]) == 7
    assert engine.asked[0][1]["tools"][0]["function"]["name"] == "add"
    with pytest.raises(ValueError, match="give messages"):
        llm.count_tokens("hello", tools=[add])


def test_log_probabilities_of_calls_completions_and_streams() -> None:
    likely = TokenLogprob("A", 1, -0.1, b"A")
    drawn = TokenLogprob("�", 2, -2.5, b"\xe4", top=(likely, TokenLogprob("�", 2, -2.5, b"\xe4")))
    answer = [Chunk(content="A", logprobs=(likely,)), Chunk(content="", logprobs=(drawn,)), end(content="")]
    llm, engine = scripted(answer)
    one = [LogProb(token="A", logprob=-0.1, bytes=[65])]
    two = [LogProb(token="�", logprob=-2.5, bytes=[0xE4]), *one]
    assert llm.chat(HELLO, logprobs=True).logprobs == [one, two]
    assert llm.complete("hello", top_logprobs=2).logprobs == [one, two]
    assert [response.logprobs for response in llm.stream_chat(HELLO, logprobs=True)] == [[one], [one, two], [one, two]]
    llm.chat(HELLO, logprobs=False, top_logprobs=3)
    llm.chat(HELLO)
    scripted_default, other = scripted([end(content="x")], logprobs=True, top_logprobs=4)
    assert scripted_default.chat(HELLO).logprobs is None
    assert [options.get("logprobs") for _, options in engine.asked] == [0, 2, 0, None, None]
    assert other.asked[0][1]["logprobs"] == 4
    assert math.exp(one[0].logprob) < 1


def test_completions_tell_calls_in_their_kwargs() -> None:
    engine = ScriptedEngine(ONE)
    response = MiniCPMLLM(engine=engine).complete("hello", tools=[add])
    assert response.additional_kwargs["tool_calls"][0]["function"]["name"] == "add"


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")  # LlamaIndex's agents
async def test_an_agent_sees_calls_results_and_errors() -> None:
    def broken() -> str:
        """Break."""
        raise RuntimeError("no connection")

    llm, engine = scripted(
        [*pieces("call_1", "add", {"a": 1, "b": 2}), *pieces("call_2", "broken", {}, 1), end("tool_calls")],
        [end(content="It is 3.")],
    )
    agent = FunctionAgent(tools=[add, broken], llm=llm, system_prompt="Be brief.")
    assert str(await agent.run("1 + 2?")) == "It is 3."
    first, second = (messages for messages, _ in engine.asked)
    assert [message["role"] for message in first] == ["system", "user"]
    assert [message["role"] for message in second] == ["system", "user", "assistant", "tool", "tool"]
    assert [call["id"] for call in second[2]["tool_calls"]] == ["call_1", "call_2"]
    results = {message["tool_call_id"]: message["content"] for message in second[3:]}
    assert results == {"call_1": "3", "call_2": "no connection"}
    assert engine.asked[0][1]["parallel_tool_calls"] is True
