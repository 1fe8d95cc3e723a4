"""Structured answers: what is asked, what is yielded on the way, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.bridge.pydantic import BaseModel, ValidationError, field_validator
from llama_index.core.callbacks import CallbackManager
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode

from llamaindex_minicpm import MiniCPM, MiniCPMLLM
from minicpm_core import IncompleteOutputError
from minicpm_core.types import Chunk
from tests.llamaindex.scripted import ScriptedEngine, end, pieces

PROMPT = PromptTemplate("Who is {who}?")


class Person(BaseModel):
    """A person."""

    name: str
    tags: list[str]
    age: int

    @field_validator("age")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError("nobody is younger than 0")
        return value


ANSWER = '{"name": "Ada L", "tags": ["a", "b"], "age": 36}'
ADA = Person(name="Ada L", tags=["a", "b"], age=36)


def scripted(text: str = ANSWER, reason: str = "stop", **options: Any) -> tuple[MiniCPM, ScriptedEngine]:
    engine = ScriptedEngine([*(Chunk(content=sign) for sign in text), end(reason)])
    return MiniCPM(engine=engine, **options), engine


@pytest.mark.parametrize("llm_class", [MiniCPM, MiniCPMLLM])
async def test_the_answer_itself_follows_the_schema(llm_class: Any) -> None:
    engine = scripted()[1]
    llm = llm_class(engine=engine, system_prompt="Be brief.", temperature=1)
    assert llm.structured_predict(Person, PROMPT, llm_kwargs={"temperature": 0, "tool_choice": "x"}, who="Ada") == ADA
    assert await llm.astructured_predict(Person, PROMPT, who="Ada") == ADA
    (messages, options), (_, plain) = engine.asked
    assert messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who is Ada?"}]
    assert options["response_schema"] is Person
    assert options["sampling"].temperature == 0
    assert plain["sampling"].temperature == 1
    assert not {"tools", "tool_choice"} & set(options)


async def test_partial_objects_grow_up_to_the_whole() -> None:
    llm, _ = scripted()
    objects = list(llm.stream_structured_predict(Person, PROMPT, who="Ada"))
    assert [o async for o in await llm.astream_structured_predict(Person, PROMPT, who="Ada")] == objects
    assert objects[-1] == ADA
    shown = [(o.name, o.tags, o.age) for o in objects]
    assert shown[:6] == [(name, None, None) for name in ("", "A", "Ad", "Ada", "Ada ", "Ada L")]
    assert ("Ada L", ["a"], None) in shown
    assert ("Ada L", ["a", "b"], 3) in shown
    assert len(shown) == len(set(map(str, shown))) + 1  # the whole comes once more, checked
    assert type(objects[0]).__name__ == "FlexiblePerson"


@pytest.mark.parametrize("text", ["", '{"name": "Ada', '{"name": "Ada", "tags": ["x"'])
async def test_answers_that_are_cut_off_are_told_with_their_text(text: str) -> None:
    llm, _ = scripted(text, "length")
    with pytest.raises(IncompleteOutputError, match="cut off by max_tokens") as error:
        llm.structured_predict(Person, PROMPT, who="Ada")
    assert error.value.text == text
    with pytest.raises(IncompleteOutputError):
        await llm.astructured_predict(Person, PROMPT, who="Ada")
    with pytest.raises(IncompleteOutputError):
        list(llm.stream_structured_predict(Person, PROMPT, who="Ada"))
    with pytest.raises(IncompleteOutputError):
        llm.as_structured_llm(Person).complete("Ada")


def test_an_answer_that_is_whole_at_the_limit_is_an_answer() -> None:
    assert scripted(ANSWER, "length")[0].structured_predict(Person, PROMPT, who="Ada") == ADA


def test_the_classs_own_validators_are_asked() -> None:
    llm, _ = scripted('{"name": "Ada", "tags": [], "age": -1}')
    with pytest.raises(ValidationError, match="nobody is younger than 0"):
        llm.structured_predict(Person, PROMPT, who="Ada")
    objects = llm.stream_structured_predict(Person, PROMPT, who="Ada")
    with pytest.raises(ValidationError, match="nobody is younger than 0"):
        list(objects)


def test_tools_beside_the_object_are_refused() -> None:
    with pytest.raises(ValueError, match="llm_kwargs holds tools"):
        scripted()[0].structured_predict(Person, PROMPT, llm_kwargs={"tools": [print]}, who="Ada")
    with pytest.raises(ValueError, match="unknown arguments: n_predict"):
        scripted()[0].structured_predict(Person, PROMPT, llm_kwargs={"n_predict": 1}, who="Ada")


def test_leaving_a_structured_stream_closes_the_models() -> None:
    llm, engine = scripted(callback_manager=CallbackManager([]))
    closed: list[bool] = []

    def stream(messages: Any, **options: Any) -> Any:
        try:
            for sign in ANSWER:
                yield Chunk(content=sign)
        finally:
            closed.append(True)

    engine.stream = stream  # type: ignore[method-assign]
    objects = llm.stream_structured_predict(Person, PROMPT, who="Ada")
    next(objects)
    assert not closed
    objects.close()
    assert closed == [True]


def test_function_mode_is_llamaindexs_own_way() -> None:
    values = {"name": "Ada", "tags": [], "age": 36}
    engine = ScriptedEngine([*pieces("call_1", "Person", values), end("tool_calls")])
    llm = MiniCPM(engine=engine, pydantic_program_mode=PydanticProgramMode.FUNCTION)
    assert llm.structured_predict(Person, PROMPT, who="Ada") == Person(**values)
    assert list(llm.stream_structured_predict(Person, PROMPT, who="Ada"))[-1] == Person(**values)
    assert engine.asked[0][1]["tool_choice"] == "any"
    assert "response_schema" not in engine.asked[0][1]


def test_chat_takes_a_schema_too() -> None:
    llm, engine = scripted()
    prompt = ChatPromptTemplate.from_messages([("system", "S"), ("user", "Who is {who}?")])
    assert llm.structured_predict(Person, prompt, who="Ada") == ADA
    llm.chat(prompt.format_messages(who="Ada"), response_schema={"type": "integer"})
    assert [options["response_schema"] for _, options in engine.asked] == [Person, {"type": "integer"}]
    assert engine.asked[0][0] == engine.asked[1][0]
