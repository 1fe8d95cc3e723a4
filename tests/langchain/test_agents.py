"""Agents of LangChain: real tools are run, and both strategies for a final answer end in one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from langchain_minicpm import ChatMiniCPM
from minicpm_core import Chunk, Usage
from minicpm_core.types import ToolCall
from tests.langchain.conftest import TOYS, ScriptedEngine


class Report(BaseModel):
    """What was found out."""

    total: int = Field(ge=0, le=99)
    unit: str = Field(max_length=6)


class Turns(ScriptedEngine):
    """Says another script every time it is asked."""

    def __init__(self, *scripts: tuple[Chunk, ...], name: str = "scripted") -> None:
        super().__init__(name=name)
        self.scripts = iter(scripts)

    def stream(self, messages: Any, **options: Any) -> Iterator[Chunk]:
        self.asked.append((messages, options))
        yield from next(self.scripts)


def calling(name: str, **arguments: Any) -> tuple[Chunk, ...]:
    text = json.dumps(arguments)
    call = ToolCall(f"call_{name}", name)
    whole = ToolCall(call.id, text=text, arguments=arguments)
    return (
        Chunk(reasoning="I need a tool."),
        Chunk(tool_calls=(call,)),
        Chunk(tool_calls=(whole,)),
        Chunk(finish_reason="tool_calls", usage=Usage(1, 2)),
    )


def saying(text: str) -> tuple[Chunk, ...]:
    return (Chunk(text), Chunk(finish_reason="stop", usage=Usage(1, 2)))


ran: list[tuple[int, int]] = []


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    ran.append((a, b))
    return a * b


QUESTION = {"messages": [HumanMessage("How many eggs are in six boxes of seven?")]}


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_agent_runs_its_tool_and_answers(is_async: bool) -> None:
    ran.clear()
    engine = Turns(calling("multiply", a=6, b=7), saying("There are 42 eggs."))
    agent = create_agent(ChatMiniCPM(engine=engine), [multiply])
    state = await agent.ainvoke(QUESTION) if is_async else agent.invoke(QUESTION)
    _, call, result, answer = state["messages"]
    assert ran == [(6, 7)]
    assert isinstance(call, AIMessage)
    assert [block["type"] for block in call.content_blocks] == ["reasoning", "tool_call"]
    assert isinstance(result, ToolMessage)
    assert (result.content, answer.content) == ("42", "There are 42 eggs.")
    assert engine.asked[1][0][-1] == {
        "role": "tool",
        "content": "42",
        "name": "multiply",
        "tool_call_id": call.tool_calls[0]["id"],
    }


def test_the_providers_strategy_binds_tools_and_schema_together() -> None:
    ran.clear()
    engine = Turns(calling("multiply", a=6, b=7), saying('{"total": 42, "unit": "eggs"}'))
    for response_format in (ProviderStrategy(Report, strict=True), Report):  # the profile chooses it for a bare schema
        engine.scripts = iter((calling("multiply", a=6, b=7), saying('{"total": 42, "unit": "eggs"}')))
        chat = ChatMiniCPM(engine=engine, profile={"structured_output": True, "tool_calling": True})
        state = create_agent(chat, [multiply], response_format=response_format).invoke(QUESTION)
        assert state["structured_response"] == Report(total=42, unit="eggs")
        asked = engine.asked[-1][1]
        assert asked["tool_choice"] == "auto"
        assert asked["tools"][0]["function"]["name"] == "multiply"
        assert set(asked["response_schema"]["properties"]) == {"total", "unit"}
    assert ran == [(6, 7), (6, 7)]


def test_the_tool_strategy_ends_with_a_forced_call() -> None:
    ran.clear()
    engine = Turns(calling("multiply", a=6, b=7), calling("Report", total=42, unit="eggs"))
    agent = create_agent(ChatMiniCPM(engine=engine), [multiply], response_format=ToolStrategy(Report))
    assert agent.invoke(QUESTION)["structured_response"] == Report(total=42, unit="eggs")
    assert engine.asked[0][1]["tool_choice"] == "any"
    assert ran == [(6, 7)]


def test_a_half_call_is_never_run() -> None:
    ran.clear()
    cut = (
        Chunk(tool_calls=(ToolCall("call_1", "multiply"),)),
        Chunk(tool_calls=(ToolCall("call_1", text='{"a": 6, "b": 7', error="the call was cut off"),)),
        Chunk(finish_reason="length", usage=Usage(1, 2)),
    )
    for streaming in (None, True):
        agent = create_agent(ChatMiniCPM(engine=Turns(cut), streaming=streaming), [multiply])
        last = agent.invoke(QUESTION)["messages"][-1]
        assert (last.tool_calls, [call["id"] for call in last.invalid_tool_calls]) == ([], ["call_1"])
        agent = create_agent(ChatMiniCPM(engine=Turns(cut)), [multiply])
        list(agent.stream(QUESTION, stream_mode="messages"))
    assert ran == []


@pytest.mark.parametrize("name", TOYS)
def test_random_weights_end_in_an_answer_of_the_schema(name: str, toys: dict[str, Path]) -> None:
    chat = ChatMiniCPM(model=toys[name], seed=2, max_tokens=400)
    assert chat.profile is not None
    for response_format in (Report, ProviderStrategy(Report), ToolStrategy(Report)):
        state = create_agent(chat, [], response_format=response_format).invoke(QUESTION)
        assert isinstance(state["structured_response"], Report)
        assert 0 <= state["structured_response"].total <= 99


@pytest.mark.parametrize("name", ["minicpm5", "json"])
def test_random_weights_call_tools_or_end_in_an_answer(name: str, toys: dict[str, Path]) -> None:
    chat = ChatMiniCPM(model=toys[name], max_tokens=300, temperature=1.0)
    bound = chat.bind_tools([multiply], response_format=Report)
    kinds = set()
    for seed in range(6):
        answer = bound.invoke("How many eggs?", seed=seed)
        for call in answer.tool_calls:
            assert {type(value) for value in call["args"].values()} == {int}
            assert set(call["args"]) == {"a", "b"}
        if not answer.tool_calls:
            Report.model_validate_json(answer.text)
        kinds.add(bool(answer.tool_calls))
    assert kinds <= {True, False}
