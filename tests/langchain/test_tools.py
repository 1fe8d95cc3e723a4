"""Tools: every form of them and of the choice reaches the engine; calls come back whole, or as what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_core.utils.json import parse_partial_json
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream
from pydantic import BaseModel, Field, ValidationError
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from langchain_minicpm import ChatMiniCPM
from langchain_minicpm.answers import spoil
from langchain_minicpm.convert import to_template
from langchain_minicpm.tools import to_tool
from minicpm_core import Chunk, Usage
from minicpm_core.types import ToolCall
from tests.langchain.conftest import TOYS, ScriptedEngine, add

in_beta = pytest.mark.filterwarnings("ignore:.*is in beta")


@tool
def add_numbers(a: int, b: int = 0) -> int:
    """Add two numbers."""
    return a + b


class Search(BaseModel):
    """Search the files."""

    query: str = Field(description="what to look for")


class SearchV1(BaseModelV1):
    """Search the files."""

    query: str


class SearchDict(TypedDict):
    """Search the files."""

    query: str


def search(query: str) -> str:
    """Search the files."""
    return query


class Node(BaseModel):
    """A tree."""

    value: int
    child: Node | None = None


PARAMETERS = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (Search, "Search"),
        (SearchV1, "SearchV1"),
        (SearchDict, "SearchDict"),
        (search, "search"),
        ({"title": "search", "description": "Search the files.", **PARAMETERS}, "search"),
        (
            {
                "type": "function",
                "function": {"name": "search", "description": "Search the files.", "parameters": PARAMETERS},
            },
            "search",
        ),
        ({"name": "search", "description": "Search the files.", "parameters": PARAMETERS}, "search"),
        (
            {
                "name": "search",
                "description": "Search the files.",
                "input_schema": PARAMETERS,
                "cache_control": {"type": "ephemeral"},
            },
            "search",
        ),
    ],
)
def test_every_form_of_a_tool_becomes_one_form(given: Any, name: str) -> None:
    made = to_tool(given)
    function = made["function"]
    assert made == {"type": "function", "function": function}
    assert set(function) == {"name", "description", "parameters"}
    assert (function["name"], function["description"]) == (name, "Search the files.")
    assert function["parameters"]["properties"]["query"]["type"] == "string"
    assert function["parameters"]["required"] == ["query"]
    assert to_tool(made) == made


def test_tools_with_defaults_without_arguments_and_that_refer_to_themselves() -> None:
    assert to_tool(add_numbers)["function"]["parameters"]["required"] == ["a"]
    assert to_tool({"title": "now"})["function"]["parameters"] == {"type": "object", "properties": {}}
    parameters = to_tool(Node)["function"]["parameters"]
    assert parameters["$defs"]["Node"]["properties"]["child"]["anyOf"][0] == {"$ref": "#/$defs/Node"}


@pytest.mark.parametrize("given", [{"type": "web_search"}, {"type": "object"}, 3, None, {"name": "", "parameters": {}}])
def test_what_is_no_tool_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"function|tool"):
        to_tool(given)


NAMED = {"type": "function", "function": {"name": "search"}}


def ask(options: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **bound: Any) -> dict[str, Any]:
    """What the engine is asked with two tools bound."""
    engine = ScriptedEngine(Chunk("x", finish_reason="stop", usage=Usage(1, 1)))
    chat = ChatMiniCPM(engine=engine, **(model or {}))
    chat.bind_tools([search, add_numbers], **bound).invoke("Hi", **(options or {}))
    return engine.asked[0][1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "auto"),
        (False, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ("any", "any"),
        ("required", "any"),
        (True, "any"),
        ("search", NAMED),
        (NAMED, NAMED),
        ({"type": "tool", "name": "search"}, NAMED),
        ({"type": "any"}, "any"),
        ({"type": "auto"}, "auto"),
    ],
)
def test_every_form_of_the_choice_reaches_the_engine(given: Any, expected: Any) -> None:
    asked = ask(tool_choice=given)
    assert asked["tool_choice"] == expected
    assert [made["function"]["name"] for made in asked["tools"]] == ["search", "add_numbers"]


def test_the_constructors_choice_is_the_default_of_bound_tools() -> None:
    forced = {"tool_choice": "any", "parallel_tool_calls": False}
    assert ask()["parallel_tool_calls"] is True
    assert {key: ask(model=forced)[key] for key in forced} == forced
    changed = ask(model=forced, tool_choice="none", parallel_tool_calls=True)
    assert (changed["tool_choice"], changed["parallel_tool_calls"]) == ("none", True)
    assert ask({"tool_choice": "auto"}, model=forced)["tool_choice"] == "auto"
    engine = ScriptedEngine(Chunk("x", finish_reason="stop"))
    ChatMiniCPM(engine=engine, **forced).invoke("Hi")
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & engine.asked[0][1].keys()


@pytest.mark.parametrize(
    "given", ["serch", 3, {"type": "function", "function": {"name": "serch"}}, {"type": "tool"}, [1]]
)
def test_a_choice_that_is_none_is_refused_when_tools_are_bound(given: Any) -> None:
    with pytest.raises(ValueError, match=r'tool_choice is .*accepted: "auto".*search, add_numbers'):
        ChatMiniCPM(model="a/b").bind_tools([search, add_numbers], tool_choice=given)


def test_what_cannot_be_bound_is_refused_at_once() -> None:
    chat = ChatMiniCPM(model="a/b")
    with pytest.raises(TypeError, match=r"logit_bias.*accepts: stop"):
        chat.bind_tools([search], logit_bias={})
    with pytest.raises(ValueError, match="no tools to choose from"):
        chat.bind_tools([], tool_choice="any")
    with pytest.raises(ValueError, match="temperature is -1"):
        chat.bind_tools([search], temperature=-1)
    with pytest.raises(ValueError, match="needs"):
        chat.bind_tools([search], response_format={"type": "json_schema"})
    with pytest.raises(ValueError, match="serch"):
        ChatMiniCPM(model="a/b", tool_choice="serch").bind_tools([search])
    with pytest.raises(ValidationError, match="top_logprobs is 3, but logprobs is False"):
        ChatMiniCPM(model="a/b", logprobs=False, top_logprobs=3)


SCHEMA = {"title": "Answer", "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "json_schema", "json_schema": {"name": "Answer", "schema": SCHEMA, "strict": True}}, SCHEMA),
        (SCHEMA, SCHEMA),
        ({"type": "json_object"}, {"type": "object"}),
        (Search, Search.model_json_schema()),
        (SearchV1, SearchV1.schema()),
        ({"type": "text"}, None),
        (None, None),
    ],
)
def test_a_response_format_goes_with_tools_and_without(given: Any, expected: Any) -> None:
    assert ask(response_format=given).get("response_schema") == expected
    engine = ScriptedEngine(Chunk("{}", finish_reason="stop"))
    ChatMiniCPM(engine=engine).invoke("Hi", response_format=given)
    assert engine.asked[0][1].get("response_schema") == expected


WHOLE = (
    Chunk(reasoning="Hm."),
    Chunk("Let me see."),
    Chunk(tool_calls=(ToolCall("call_1", "search"),)),
    Chunk(tool_calls=(ToolCall("call_1", text='{"query": "'),)),
    Chunk(tool_calls=(ToolCall("call_1", text='lamp"}', arguments={"query": "lamp"}),)),
    Chunk(tool_calls=(ToolCall("call_2", "add_numbers", {"a": 1}, '{"a": 1}', index=1),)),
    Chunk(finish_reason="tool_calls", usage=Usage(5, 6)),
)
CALLS = [
    {"name": "search", "args": {"query": "lamp"}, "id": "call_1", "type": "tool_call"},
    {"name": "add_numbers", "args": {"a": 1}, "id": "call_2", "type": "tool_call"},
]
BLOCKS = [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Let me see."}, *CALLS]


async def answers(chat: ChatMiniCPM) -> list[AIMessage]:
    return [
        chat.invoke("Hi"),
        add(list(chat.stream("Hi"))),
        await chat.ainvoke("Hi"),
        add([chunk async for chunk in chat.astream("Hi")]),
        chat.invoke("Hi", stream=True),
    ]


async def test_calls_are_the_same_whole_and_streamed() -> None:
    for answer in await answers(ChatMiniCPM(engine=ScriptedEngine(*WHOLE))):
        assert answer.tool_calls == CALLS
        assert answer.invalid_tool_calls == []
        assert answer.content == "Let me see."
        assert answer.content_blocks == BLOCKS
        assert answer.response_metadata["finish_reason"] == "tool_calls"


async def test_content_blocks_keep_their_order_and_indexes_apart() -> None:
    chat = ChatMiniCPM(engine=ScriptedEngine(*WHOLE), output_version="v1")
    for answer in await answers(chat):
        assert [{k: b[k] for k in b if k != "index"} for b in answer.content] == BLOCKS
        assert answer.tool_calls == CALLS
    chunks = list(chat.stream("Hi"))
    indexes = [block["index"] for chunk in chunks for block in chunk.content]
    assert indexes == [0, 1, "lc_tc_0", "lc_tc_0", "lc_tc_0", "lc_tc_1"]


def test_name_and_id_come_first_and_fragments_add_up() -> None:
    chunks = [
        chunk
        for message in ChatMiniCPM(engine=ScriptedEngine(*WHOLE)).stream("Hi")
        for chunk in message.tool_call_chunks
    ]
    assert [(c["name"], c["id"], c["index"], c["args"]) for c in chunks] == [
        ("search", "call_1", 0, ""),
        (None, None, 0, '{"query": "'),
        (None, None, 0, 'lamp"}'),
        ("add_numbers", "call_2", 1, '{"a": 1}'),
    ]


CUT = (
    Chunk(tool_calls=(ToolCall("call_1", "search", {"query": "a"}, '{"query": "a"}'),)),
    Chunk(tool_calls=(ToolCall("call_2", "search", index=1),)),
    Chunk(tool_calls=(ToolCall("call_2", text='{"query": "la', index=1),)),
    Chunk(tool_calls=(ToolCall("call_2", error="the call was cut off", index=1),)),
    Chunk(finish_reason="length", usage=Usage(5, 6)),
)
AGAINST = (
    Chunk(tool_calls=(ToolCall("call_1", "search"),)),
    Chunk(tool_calls=(ToolCall("call_1", text='{"query": "a"}', arguments={"query": "a"}, error="query: too short"),)),
    Chunk(finish_reason="stop", usage=Usage(5, 6)),
)


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_a_half_call_is_never_a_whole_one(version: str) -> None:
    for answer in await answers(ChatMiniCPM(engine=ScriptedEngine(*CUT), output_version=version)):
        assert [call["id"] for call in answer.tool_calls] == ["call_1"]
        (half,) = answer.invalid_tool_calls
        assert (half["id"], half["name"]) == ("call_2", "search")
        assert half["args"].startswith('{"query": "la')
        assert "the call was cut off" in f"{half['args']} {half['error']}"
        assert answer.response_metadata["finish_reason"] == "length"


async def test_a_call_against_its_schema_is_invalid() -> None:
    for answer in await answers(ChatMiniCPM(engine=ScriptedEngine(*AGAINST))):
        assert answer.tool_calls == []
        (call,) = answer.invalid_tool_calls
        assert call["args"].startswith('{"query": "a"}')
        assert "query: too short" in f"{call['args']} {call['error']}"


@in_beta
async def test_the_events_of_a_stream_are_valid_and_add_up() -> None:
    chat = ChatMiniCPM(engine=ScriptedEngine(*WHOLE))
    stream = chat.stream_events("Hi", version="v3")
    assert_valid_event_stream(list(stream))
    asynchronous = await chat.astream_events("Hi", version="v3")
    assert_valid_event_stream([event async for event in asynchronous])
    for output in (stream.output, await asynchronous.output):
        assert output.tool_calls == CALLS
        assert [{k: b[k] for k in b if k not in ("index", "id")} for b in output.content_blocks[:2]] == BLOCKS[:2]


@in_beta
def test_the_events_of_a_stream_tell_half_calls_too() -> None:
    chat = ChatMiniCPM(engine=ScriptedEngine(*CUT))
    output = chat.stream_events("Hi", version="v3").output
    assert [call["id"] for call in output.tool_calls] == ["call_1"]
    assert [call["id"] for call in output.invalid_tool_calls] == ["call_2"]


def test_no_beginning_of_a_call_is_repaired() -> None:
    whole = json.dumps({"a": ['x"\\', {"b": [[1, -2.5e3, True]]}], "[{": "]}\n", "保": None}, ensure_ascii=False)
    for text in (whole, json.dumps(json.loads(whole))):
        for end in range(len(text) + 1):
            begun = text[:end]
            assert end < 2 or parse_partial_json(begun) is not None
            spoilt = begun + spoil(begun) + ' the reason {"a": 1}'
            assert not isinstance(parse_partial_json(spoilt), dict), begun
            with pytest.raises(ValueError, match=r"Expecting|Extra|Invalid"):
                json.loads(spoilt)


def test_earlier_calls_and_results_stand_in_the_prompt(toys: dict[str, Path]) -> None:
    history = [
        HumanMessage("Find the lamp."),
        AIMessage(
            "",
            tool_calls=[{"name": "search", "args": {"query": "lamp-x"}, "id": "1"}],
            invalid_tool_calls=[{"name": "search", "args": '{"query": "half-y', "id": "2", "error": "cut"}],
        ),
        ToolMessage("result-z", tool_call_id="1"),
        ToolMessage("too long", tool_call_id="2", status="error"),
        AIMessage([{"type": "tool_use", "id": "3", "name": "search", "input": {"query": "block-u"}}]),
        ToolMessage([{"type": "text", "text": "result-v"}], tool_call_id="3", artifact={"hidden": "never-w"}),
        AIMessage("", additional_kwargs={"function_call": {"name": "search", "arguments": '{"query": "old-s"}'}}),
        HumanMessage("And?"),
    ]
    for name in TOYS:
        chat = ChatMiniCPM(model=toys[name])
        text = chat.load_engine().render(to_template(history), tools=[to_tool(search)])
        shown = [
            part
            for part in ("lamp-x", "half-y", "result-z", "block-u", "result-v", "old-s", "too long")
            if part in text
        ]
        assert shown == ["lamp-x", "half-y", "result-z", "block-u", "result-v", "old-s", "too long"], (name, text)
        assert "never-w" not in text
        with_tools = chat.get_num_tokens_from_messages(history, tools=[search])
        answer = chat.bind_tools([search]).invoke(history, max_tokens=1)
        assert with_tools == answer.usage_metadata["input_tokens"] > chat.get_num_tokens_from_messages(history)


@pytest.mark.parametrize("name", TOYS)
def test_random_weights_call_as_the_schema_says(name: str, toys: dict[str, Path]) -> None:
    class Order(BaseModel):
        """Order goods."""

        item: str = Field(min_length=2, max_length=12)
        count: int = Field(ge=1, le=9)
        colors: list[str] = Field(max_length=2)

    ids = set()
    for seed in range(3):
        chat = ChatMiniCPM(model=toys[name], seed=seed, temperature=1.0, max_tokens=600, tool_choice="any")
        bound = chat.bind_tools([Order, add_numbers], parallel_tool_calls=seed > 0)
        chunks = list(bound.stream("Order three red lamps."))
        answer = add(chunks)
        assert answer.tool_calls
        assert seed > 0 or len(answer.tool_calls) == 1
        for n, call in enumerate(answer.tool_calls):
            pieces = [p for chunk in chunks for p in chunk.tool_call_chunks if p["index"] == n]
            assert json.loads("".join(p["args"] for p in pieces)) == call["args"]
            assert call["name"] in ("Order", "add_numbers")
            if call["name"] == "Order":
                Order.model_validate(call["args"])
            ids.add(call["id"])
        assert bound.invoke("Order three red lamps.").tool_calls[0]["args"] == answer.tool_calls[0]["args"]
    assert len(ids) >= 3


@pytest.mark.parametrize("name", TOYS)
def test_a_call_without_room_is_reported(name: str, toys: dict[str, Path]) -> None:
    chat = ChatMiniCPM(model=toys[name], seed=0, max_tokens=6, tool_choice="search")
    bound = chat.bind_tools([search])
    for answer in (bound.invoke("Find the lamp."), add(list(bound.stream("Find the lamp.")))):
        assert answer.tool_calls == []
        assert answer.response_metadata["finish_reason"] == "length"
        assert {call["name"] for call in answer.invalid_tool_calls} <= {"search", ""}
        assert answer.content == ""
