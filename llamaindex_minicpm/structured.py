"""Answers that follow a pydantic class: the whole object, and partial ones while it is streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from functools import lru_cache
from typing import Any, Generic

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.bridge.pydantic import BaseModel, ValidationError
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictInProgressEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import Model, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic_core import from_json

from llamaindex_minicpm.closing import closes_its_stream, opened
from minicpm_core.types import IncompleteOutputError

dispatcher = get_dispatcher(__name__)
_OF_THE_PROGRAM = ("tool_choice", "tool_required", "allow_parallel_tool_calls")  # LlamaIndex drops them as well


class StructuredAnswers(LLM):
    """LlamaIndex's four ways to ask for an object, through `chat(..., response_schema=...)`.

    Another `pydantic_program_mode` than the default is LlamaIndex's own way.
    """

    @dispatcher.span
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an object of `output_cls`; the answer is decoded under its schema.

        Args:
            output_cls: a pydantic class.
            prompt: what to ask.
            llm_kwargs: arguments of `chat`.
            **prompt_args: what fills the prompt's places.

        Raises:
            IncompleteOutputError: the answer was cut off before it was whole.
            ValidationError: the class's own validators refuse the values.
        """
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            other: Model = super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return other
        messages, options = self._ask_for(output_cls, prompt, llm_kwargs, prompt_args)
        return _finish(output_cls, self.chat(messages, **options))

    @dispatcher.span
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Do what `structured_predict` does without blocking the event loop."""
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            other: Model = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return other
        messages, options = self._ask_for(output_cls, prompt, llm_kwargs, prompt_args)
        return _finish(output_cls, await self.achat(messages, **options))

    @closes_its_stream
    @dispatcher.span
    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """Yield the object as far as it is there, and at last the whole; arguments as of `structured_predict`.

        Partial objects are LlamaIndex's: of a class with the same fields where values are missing, None if so.
        """
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            return super().stream_structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        messages, options = self._ask_for(output_cls, prompt, llm_kwargs, prompt_args)
        responses = opened(self.stream_chat(messages, **options))

        def run() -> Generator[Model | FlexibleModel, None, None]:
            partials, last = Partials(output_cls), None
            for last in responses:
                if (partial := partials.read(last)) is not None:
                    yield partial
            yield _finish(output_cls, last)

        return run()

    @closes_its_stream
    @dispatcher.span
    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        """Do what `stream_structured_predict` does without blocking the event loop."""
        if self.pydantic_program_mode != PydanticProgramMode.DEFAULT:
            return await super().astream_structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        messages, options = self._ask_for(output_cls, prompt, llm_kwargs, prompt_args)
        responses = opened(await self.astream_chat(messages, **options))

        async def run() -> AsyncGenerator[Model | FlexibleModel, None]:
            partials, last = Partials(output_cls), None
            async for last in responses:
                if (partial := partials.read(last)) is not None:
                    yield partial
            yield _finish(output_cls, last)

        return run()

    def _ask_for(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> tuple[list[ChatMessage], dict[str, Any]]:
        """Return the messages and the arguments of the chat that answers with the object."""
        options = {name: value for name, value in (llm_kwargs or {}).items() if name not in _OF_THE_PROGRAM}
        if options.get("tools"):
            raise ValueError("llm_kwargs holds tools; a structured answer is an object and no call: leave them out")
        dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        return prompt.format_messages(llm=self, **prompt_args), options | {"response_schema": output_cls}


def _finish(output_cls: type[Model], response: ChatResponse | None) -> Model:
    """Return the object that a whole answer is.

    Raises:
        IncompleteOutputError: the answer is not whole.
    """
    text = (response.message.content if response else None) or ""
    try:
        json.loads(text)
    except ValueError:
        raise IncompleteOutputError(text) from None
    result = output_cls.model_validate_json(text)
    dispatcher.event(LLMStructuredPredictEndEvent(output=result))
    return result


@lru_cache(maxsize=128)
def _make_flexible(output_cls: type[BaseModel]) -> type[FlexibleModel]:
    return create_flexible_model(output_cls)


class Partials(Generic[Model]):
    """Reads the objects that the beginnings of an answer hold."""

    def __init__(self, output_cls: type[Model]) -> None:
        self._output_cls = output_cls
        self._flexible = _make_flexible(output_cls)
        self._seen: Any = {}

    def read(self, response: ChatResponse) -> Model | FlexibleModel | None:
        """Return the object so far, None where nothing came to it."""
        try:
            values = from_json(response.message.content or "", allow_partial="trailing-strings")
        except ValueError:
            return None
        if values == self._seen or not isinstance(values, dict):
            return None
        self._seen = values
        partial: Model | FlexibleModel
        try:
            partial = self._output_cls.model_validate(values)
        except ValidationError:
            partial = self._flexible.model_validate(values)
        dispatcher.event(LLMStructuredPredictInProgressEvent(output=partial))
        return partial
