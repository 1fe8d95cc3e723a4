"""Checks of answers that are pydantic objects."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.prompts import PromptTemplate

from tests.conformance.llama_index_checks.base import Conformance, check_is_llm, gather, text_of
from tests.conformance.llama_index_checks.observing import watch


class Person(BaseModel):
    """A person."""

    name: str
    age: int = Field(ge=0, le=130)


class Address(BaseModel):
    """Where somebody lives."""

    city: str
    zip_code: str = Field(pattern=r"^[0-9]{5}$")


class Employee(BaseModel):
    """Somebody who works for a company."""

    person: Person
    role: Literal["engineer", "designer", "other"]
    homes: list[Address] = Field(max_length=2)
    manager: str | None = None
    remote: bool = False


PROMPT = PromptTemplate("Who is this? {text}")
TEXT = "Ada is 36 years old."


class StructuredTests(Conformance):
    """The structured_predict family and as_structured_llm."""

    def test_structured_predict(self) -> None:
        """structured_predict gives an object of the class."""
        self.need("has_structured_output")
        assert isinstance(self.create_caller().structured_predict(Person, PROMPT, text=TEXT), Person)

    async def test_astructured_predict(self) -> None:
        """astructured_predict gives an object of the class."""
        self.need("has_structured_output")
        assert isinstance(await self.create_caller().astructured_predict(Person, PROMPT, text=TEXT), Person)

    def test_stream_structured_predict(self) -> None:
        """stream_structured_predict gives objects with the class's fields, the whole at last."""
        self.need("has_structured_output")
        self._check(list(self.create_caller().stream_structured_predict(Person, PROMPT, text=TEXT)))

    async def test_astream_structured_predict(self) -> None:
        """astream_structured_predict gives objects with the class's fields, the whole at last."""
        self.need("has_structured_output")
        self._check(await gather(self.create_caller().astream_structured_predict(Person, PROMPT, text=TEXT)))

    def _check(self, partials: list[Any]) -> None:
        assert all(hasattr(partial, "name") and hasattr(partial, "age") for partial in partials)
        assert isinstance(partials[-1], Person)
        names = [partial.name for partial in partials if partial.name]
        assert all(partials[-1].name.startswith(name) for name in names)

    def test_structured_forms_agree(self) -> None:
        """The last object of a stream is the object that is given without streaming."""
        self.need("has_structured_output", "is_deterministic")
        llm = self.create_caller()
        whole = llm.structured_predict(Person, PROMPT, text=TEXT)
        assert list(llm.stream_structured_predict(Person, PROMPT, text=TEXT))[-1] == whole

    def test_nested_objects(self) -> None:
        """Nested objects, lists, patterns, enums, unions and defaults are kept."""
        self.need("has_structured_output")
        employee = self.create_caller().structured_predict(Employee, PROMPT, text=TEXT)
        assert isinstance(employee, Employee)
        assert employee.role in ("engineer", "designer", "other")

    def test_llm_kwargs_are_used(self) -> None:
        """llm_kwargs reach the model: with one token there is an error and not half an object."""
        self.need("has_structured_output")
        llm = self.create_caller()
        with pytest.raises(ValueError, match=r"(?s)."):
            llm.structured_predict(Person, PROMPT, llm_kwargs={"max_tokens": 1}, text=TEXT)
        with pytest.raises(ValueError, match=r"(?s)."):
            list(llm.stream_structured_predict(Person, PROMPT, llm_kwargs={"max_tokens": 1}, text=TEXT))

    def test_structured_events(self) -> None:
        """Instrumentation gets a start and an end event of structured_predict, the end with the object."""
        self.need("has_structured_output")
        with watch() as events:
            person = self.create_caller().structured_predict(Person, PROMPT, text=TEXT)
        own = [event for event in events.seen if "Structured" in type(event).__name__]
        assert [type(event).__name__ for event in own] == [
            "LLMStructuredPredictStartEvent",
            "LLMStructuredPredictEndEvent",
        ]
        assert own[1].output == person

    def test_structured_llm(self) -> None:
        """as_structured_llm gives an LLM whose chat and complete answer with JSON and the object in raw."""
        self.need("has_structured_output")
        llm = self.create_caller().as_structured_llm(Person)
        check_is_llm(llm)
        for response in (llm.chat(self.ask(TEXT)), llm.complete(TEXT)):
            assert isinstance(response.raw, Person)
            assert Person.model_validate_json(text_of(response)) == response.raw

    async def test_structured_llm_async(self) -> None:
        """The asynchronous methods of as_structured_llm do the same."""
        self.need("has_structured_output")
        llm = self.create_caller().as_structured_llm(Person)
        for response in (await llm.achat(self.ask(TEXT)), await llm.acomplete(TEXT)):
            assert isinstance(response.raw, Person)

    @pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # StructuredLLM's own call
    async def test_structured_llm_streams(self) -> None:
        """The streams of as_structured_llm end with the whole object."""
        self.need("has_structured_output")
        llm = self.create_caller().as_structured_llm(Person)
        assert isinstance(list(llm.stream_chat(self.ask(TEXT)))[-1].raw, Person)
        assert isinstance((await gather(llm.astream_chat(self.ask(TEXT))))[-1].raw, Person)

    def test_braces_in_messages(self) -> None:
        """Braces in a message of as_structured_llm are text, no places to fill."""
        self.need("has_structured_output")
        response = self.create_caller().as_structured_llm(Person).chat(self.ask('{"name": {x}} of {text}'))
        assert isinstance(response.raw, Person)
