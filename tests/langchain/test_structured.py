"""Structured output: every method and kind of schema gives values that follow it, or an error that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk
from pydantic import BaseModel, Field, field_validator
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import Field as FieldV1
from typing_extensions import TypedDict

from langchain_minicpm import ChatMiniCPM
from minicpm_core import Chunk, Usage
from minicpm_core.types import IncompleteOutputError, ToolCall
from tests.langchain.conftest import TOYS, ScriptedEngine, add

METHODS = ("json_schema", "function_calling", "json_mode")


class Person(BaseModel):
    """A person."""

    name: str = Field(min_length=1, max_length=8)
    age: int = Field(ge=0, le=120)
    city: str | None = Field(default=None, max_length=8)


class PersonV1(BaseModelV1):
    """A person."""

    name: str = FieldV1(min_length=1, max_length=8)
    age: int = FieldV1(ge=0, le=120)


class PersonDict(TypedDict):
    """A person."""

    name: Annotated[str, ..., "first name"]
    age: Annotated[int, ..., "years"]


SCHEMA = {
    "title": "person",
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 8}, "age": {"enum": [1, 2, 3]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def engine_saying(text: str, finish: Any = "stop", *, name: str | None = None, step: int = 5) -> ScriptedEngine:
    """Say `text` in pieces, as an answer or as the arguments of a call."""
    parts = [text[start : start + step] for start in range(0, len(text), step)]
    last = Chunk(finish_reason=finish, usage=Usage(3, len(parts)))
    if name is None:
        return ScriptedEngine(*map(Chunk, parts), last)
    import json

    pieces = [Chunk(tool_calls=(ToolCall("call_1", name),))]
    pieces += [Chunk(tool_calls=(ToolCall("call_1", text=part),)) for part in parts]
    end = {"error": "the call was cut off"} if finish == "length" else {"arguments": json.loads(text)}
    return ScriptedEngine(*pieces, Chunk(tool_calls=(ToolCall("call_1", **end),)), last)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Person, PersonV1, PersonDict, SCHEMA])
def test_random_weights_answer_as_the_schema_says(method: Any, schema: Any, toys: dict[str, Path]) -> None:
    for name in ("minicpm5", "json"):
        chat = ChatMiniCPM(model=toys[name], seed=1, max_tokens=400)
        structured = chat.with_structured_output(schema, method=method)
        answer = structured.invoke("Who is it?")
        last = list(structured.stream("Who is it?"))[-1]
        assert last == answer
        values = answer if isinstance(answer, dict) else answer.dict() if schema is PersonV1 else answer.model_dump()
        assert isinstance(answer, dict if schema in (PersonDict, SCHEMA) else schema)
        assert isinstance(values["name"], str)
        assert values["age"] in ((1, 2, 3) if schema is SCHEMA else range(-(10**18), 10**18))
        assert set(values) <= {"name", "age", "city"}


@pytest.mark.parametrize("name", TOYS)
async def test_every_dialect_answers_with_every_method(name: str, toys: dict[str, Path]) -> None:
    chat = ChatMiniCPM(model=toys[name], seed=1, max_tokens=400)
    for method in METHODS:
        answer = await chat.with_structured_output(Person, method=method).ainvoke("Who is it?")
        assert isinstance(answer, Person)


@pytest.mark.parametrize("strict", [None, True, False])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_bound_tells_the_schema_and_the_method(method: Any, strict: bool | None) -> None:
    engine = engine_saying('{"name": "Ann", "age": 1}', name="person" if method == "function_calling" else None)
    chat = ChatMiniCPM(engine=engine)
    structured = chat.with_structured_output(SCHEMA, method=method, strict=strict, max_tokens=50)
    bound = structured.first.kwargs["ls_structured_output_format"]
    assert (bound["kwargs"]["method"], bound["schema"]) == (method, SCHEMA)
    assert structured.invoke("Who?") == {"name": "Ann", "age": 1}
    asked = engine.asked[0][1]
    assert asked["sampling"].max_new_tokens == 50
    if method == "function_calling":
        assert asked["tool_choice"] == {"type": "function", "function": {"name": "person"}}
        assert asked["parallel_tool_calls"] is False
    else:
        assert asked["response_schema"] == SCHEMA
        assert "tools" not in asked


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_partial_answers_grow(method: Any) -> None:
    text = '{"name": "Annabel", "age": 12}'
    name = "person" if method == "function_calling" else None
    chat = ChatMiniCPM(engine=engine_saying(text, name=name, step=3))
    schema = SCHEMA | {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    parts = list(chat.with_structured_output(schema, method=method).stream("Who?"))
    assert parts[-1] == {"name": "Annabel", "age": 12}
    names = [part["name"] for part in parts if "name" in part]
    assert len(set(names)) > 2
    assert all("Annabel".startswith(name) for name in names)
    person = ChatMiniCPM(engine=engine_saying(text, name=name and "Person", step=3))
    instances = list(person.with_structured_output(Person, method=method).stream("Who?"))
    assert instances[-1] == Person(name="Annabel", age=12)
    assert all(isinstance(part, Person) for part in instances)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Person, SCHEMA | {"title": "Person"}])
def test_an_answer_that_was_cut_off_is_an_error_with_its_text(method: Any, schema: Any) -> None:
    name = "Person" if method == "function_calling" else None
    chat = ChatMiniCPM(engine=engine_saying('{"name": "Anna', "length", name=name))
    structured = chat.with_structured_output(schema, method=method)
    for ask in (structured.invoke, lambda question: list(structured.stream(question))):
        with pytest.raises(OutputParserException, match=r'cut off.*"name": "Anna') as caught:
            ask("Who?")
        assert isinstance(caught.value.__cause__, IncompleteOutputError)
        assert caught.value.llm_output.startswith('{"name": "Anna')
    raw = chat.with_structured_output(schema, method=method, include_raw=True)
    for result in (raw.invoke("Who?"), sum_dicts(list(raw.stream("Who?")))):
        assert set(result) == {"raw", "parsed", "parsing_error"}
        assert result["parsed"] is None
        assert "cut off" in str(result["parsing_error"])
        assert result["raw"].response_metadata["finish_reason"] == "length"


def sum_dicts(parts: list[Any]) -> Any:
    return sum(parts[1:], parts[0])


async def test_the_message_comes_along_on_request() -> None:
    chat = ChatMiniCPM(engine=engine_saying('{"name": "Ann", "age": 30}'))
    raw = chat.with_structured_output(Person, include_raw=True)
    results = [raw.invoke("Who?"), await raw.ainvoke("Who?"), sum_dicts(list(raw.stream("Who?")))]
    results.append(sum_dicts([part async for part in raw.astream("Who?")]))
    for result in results:
        assert isinstance(result["raw"], (AIMessage, AIMessageChunk))
        assert result["raw"].text == '{"name": "Ann", "age": 30}'
        assert result["parsed"] == Person(name="Ann", age=30)
        assert result["parsing_error"] is None


class Careful(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _check(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


def test_what_a_grammar_cannot_say_is_checked_afterwards() -> None:
    unique = {"title": "ids", "type": "object", "properties": {"ids": {"type": "array", "uniqueItems": True}}}
    for schema, text, reason in ((unique, '{"ids": [1, 1]}', "ids"), (Careful, '{"number": 3}', "must be even")):
        chat = ChatMiniCPM(engine=engine_saying(text))
        with pytest.raises(OutputParserException, match=reason) as caught:
            chat.with_structured_output(schema).invoke("Which?")
        assert caught.value.llm_output == text
        assert reason in str(chat.with_structured_output(schema, include_raw=True).invoke("Which?")["parsing_error"])
    assert ChatMiniCPM(engine=engine_saying('{"ids": [1, 2]}')).with_structured_output(unique).invoke("Which?") == {
        "ids": [1, 2]
    }
    broken = ToolCall("call_1", "ids", {"ids": [1, 1]}, '{"ids": [1, 1]}', "ids: has non-unique elements")
    chat = ChatMiniCPM(engine=ScriptedEngine(Chunk(tool_calls=(broken,), finish_reason="stop")))
    with pytest.raises(OutputParserException, match="non-unique"):
        chat.with_structured_output(unique, method="function_calling").invoke("Which?")


def test_tools_may_be_called_instead_of_an_answer() -> None:
    call = ToolCall("call_1", "look", {}, "{}")
    engine = ScriptedEngine(Chunk(tool_calls=(call,), finish_reason="tool_calls"))
    tools = [{"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}]
    structured = ChatMiniCPM(engine=engine).with_structured_output(SCHEMA, tools=tools, include_raw=True)
    result = structured.invoke("Who?")
    assert (result["parsed"], result["parsing_error"]) == (None, None)
    assert result["raw"].tool_calls[0]["name"] == "look"
    asked = engine.asked[0][1]
    assert (asked["response_schema"], len(asked["tools"])) == (SCHEMA, 1)


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int


def test_a_dataclass_is_answered_as_a_dict() -> None:
    chat = ChatMiniCPM(engine=engine_saying('{"x": 3}'))
    assert chat.with_structured_output(Point).invoke("Where?") == {"x": 3}


def test_what_is_no_schema_or_method_is_refused() -> None:
    chat = ChatMiniCPM(model="a/b", tool_choice="any")
    with pytest.raises(ValueError, match=r"xml.*accepted: json_schema, function_calling, json_mode"):
        chat.with_structured_output(SCHEMA, method="xml")
    with pytest.raises(ValueError, match="needs a schema"):
        chat.with_structured_output(None)
    for schema in (3, int, list[int], Person | Color, Color, object):
        with pytest.raises(
            ValueError,
            match=r"the schema is .*; accepted: a pydantic class, a TypedDict, a dataclass, a JSON schema or a tool",
        ):
            chat.with_structured_output(schema)
    with pytest.raises(ValueError, match=r"the schema {'name': 'str'} has no keyword of JSON Schema; write it as"):
        chat.with_structured_output({"name": "str"})
    with pytest.raises(ValueError, match="tools go with"):
        chat.with_structured_output(SCHEMA, method="function_calling", tools=[Person])
    with pytest.raises(TypeError, match="logit_bias"):
        chat.with_structured_output(SCHEMA, logit_bias={})


def test_any_json_object_can_be_asked_for(toys: dict[str, Path]) -> None:
    chat = ChatMiniCPM(model=toys["minicpm5"], seed=0, max_tokens=200)
    assert isinstance(chat.with_structured_output(None, method="json_mode").invoke("Anything?"), dict)
    answer = add(list(chat.stream("Anything?", response_format={"type": "json_object"})))
    assert answer.text.startswith("{")
