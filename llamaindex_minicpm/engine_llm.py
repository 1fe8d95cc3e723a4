"""LlamaIndex's eight ways to ask, over one engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, closing
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import default_completion_to_prompt

from llamaindex_minicpm.closing import closes_its_stream, opened
from llamaindex_minicpm.convert import show_pictures, to_messages
from llamaindex_minicpm.engine_fields import PICTURE_ARGUMENTS, SHOWN_ARGUMENTS, EngineFields
from llamaindex_minicpm.responses import Answer, R, to_chat_response, to_completion_response
from llamaindex_minicpm.structured import StructuredAnswers
from llamaindex_minicpm.tools import to_tools
from minicpm_core.types import Chunk, Prompt

TOOL_ARGUMENTS = ("tools", "tool_choice", "parallel_tool_calls")
FORM_ARGUMENTS = ("response_schema", "grammar", "logprobs", "top_logprobs")
CALL_ARGUMENTS = (*SHOWN_ARGUMENTS, "timeout", *TOOL_ARGUMENTS, *FORM_ARGUMENTS, *PICTURE_ARGUMENTS)
_IGNORED = ("extra_headers",)  # LlamaIndex's document extractor sends HTTP headers to any model


class EngineLLM(EngineFields, StructuredAnswers):
    """What `MiniCPM` and `MiniCPMLLM` share."""

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the engine's options of one call; what is not given is the constructor's."""
        if unknown := [name for name in given if name not in CALL_ARGUMENTS + _IGNORED]:
            raise ValueError(f"unknown arguments: {', '.join(unknown)}; accepted: {', '.join(CALL_ARGUMENTS)}")
        options = {
            "sampling": self._sampling(given),
            "stop": self._choose("stop", given),
            "enable_thinking": self._choose("enable_thinking", given),
        }
        tools, schema = given.get("tools"), given.get("response_schema")
        asked: dict[str, Any] = {"response_schema": schema, "logprobs": self._count_logprobs(given)}
        asked["timeout"] = self._choose("timeout", given)
        if tools:  # the constructor's choice is for calls with tools only
            asked |= {name: self._choose(name, given) for name in TOOL_ARGUMENTS[1:]} | {"tools": to_tools(tools)}
        else:
            asked["tool_choice"] = given.get("tool_choice")
        has_form = tools or schema is not None
        asked["grammar"] = given.get("grammar") if has_form else self._choose("grammar", given)
        asked |= self._pictures(given)
        return options | {name: value for name, value in asked.items() if value is not None}

    def _count_logprobs(self, given: dict[str, Any]) -> int | None:
        """Return how many of the likeliest tokens to tell, 0 for the drawn ones only, None for nothing."""
        wanted, top = self._choose("logprobs", given), self._choose("top_logprobs", given)
        if wanted not in (None, True, False):
            raise ValueError(f"logprobs is {wanted!r}; accepted: True or False; top_logprobs tells how many")
        return None if wanted is False or (wanted is None and not top) else top or 0

    def _chat_prompt(self, messages: Sequence[ChatMessage]) -> Prompt:
        """Return the prompt of a chat; the system prompt comes first where the messages bring none."""
        if other := [type(m).__name__ for m in messages if not isinstance(m, ChatMessage)]:
            raise TypeError(f"messages are ChatMessage objects; given {other[0]}; for a dict, ChatMessage(**message)")
        if self.messages_to_prompt not in (None, generic_messages_to_prompt):
            if lost := [
                b.block_type for m in messages for b in m.blocks if b.block_type in ("image", "video", "document")
            ]:
                raise ValueError(f"messages_to_prompt makes text of messages, and so loses {lost[0]}: leave it out")
            return str(self.messages_to_prompt(messages))
        has_system = any(m.role in (MessageRole.SYSTEM, MessageRole.DEVELOPER) for m in messages)
        return to_messages(messages if has_system else self._extend_messages(list(messages)))

    def _completion_prompt(self, prompt: str, formatted: bool, given: dict[str, Any]) -> Prompt:
        """Return one user turn, or the text as it stands when it is formatted already.

        Takes `image_documents` out of the arguments of the call; the pictures stand in front of the text.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"prompt is of type {type(prompt).__name__}; give a text, or messages to `chat`")
        pictures = given.pop("image_documents", None)
        turns: Prompt
        if self.completion_to_prompt not in (None, default_completion_to_prompt) and not formatted:
            turns = str(self.completion_to_prompt(prompt))
        elif self.raw or formatted:
            turns = prompt
        else:
            turns = self._chat_prompt([ChatMessage(role=MessageRole.USER, content=prompt)])
        if not pictures:
            return turns
        if isinstance(turns, str):
            raise ValueError("image_documents go with a prompt that is a user's turn, not with one that is formatted")
        return show_pictures(list(turns), pictures)

    def _sum(self, prompt: Prompt, given: dict[str, Any]) -> Chunk:
        options = self._options(given)
        return self.load_engine().generate(prompt, **options)

    async def _asum(self, prompt: Prompt, given: dict[str, Any]) -> Chunk:
        options = self._options(given)
        return await (await asyncio.to_thread(self.load_engine)).agenerate(prompt, **options)

    def _stream(self, prompt: Prompt, given: dict[str, Any], respond: Callable[..., R]) -> Any:
        """Return a generator of cumulative responses; what is wrong with the request is raised at once."""
        options = self._options(given)
        chunks = self.load_engine().stream(prompt, **options)

        def run() -> Any:
            answer = Answer(respond, self._model_name)
            with closing(chunks):  # type: ignore[type-var]
                for piece in chunks:
                    yield answer.add(piece)

        return opened(run())

    async def _astream(self, prompt: Prompt, given: dict[str, Any], respond: Callable[..., R]) -> Any:
        options = self._options(given)
        engine = await asyncio.to_thread(self.load_engine)

        async def run() -> AsyncIterator[R]:
            answer = Answer(respond, self._model_name)
            async with aclosing(engine.astream(prompt, **options)) as chunks:  # type: ignore[type-var]
                async for piece in chunks:
                    yield answer.add(piece)

        return opened(run())

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the messages.

        Args:
            messages: the conversation.
            **kwargs: sampling and length as in the constructor; `tools` with `tool_choice` and `parallel_tool_calls`;
                `response_schema` (JSON schema or pydantic class), with tools the form of the final answer;
                `grammar`; `logprobs` and `top_logprobs`; how pictures are read, as in the constructor.
        """
        return to_chat_response(self._sum(self._chat_prompt(messages), kwargs), model=self._model_name)

    @closes_its_stream
    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Yield the answer so far, with `delta` as its last piece."""
        return self._stream(self._chat_prompt(messages), kwargs, to_chat_response)  # type: ignore[no-any-return]

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer the prompt as one user turn; `formatted` continues it as it stands.

        Args:
            prompt: what to ask.
            formatted: whether it is a whole prompt, which no chat template is put around.
            **kwargs: as of `chat`, and `image_documents`: pictures to look at (ImageDocument, ImageNode, ImageBlock,
                paths, URLs, PIL images).
        """
        total = self._sum(self._completion_prompt(prompt, formatted, kwargs), kwargs)
        return to_completion_response(total, model=self._model_name)

    @closes_its_stream
    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Yield the answer so far, with `delta` as its last piece."""
        text = self._completion_prompt(prompt, formatted, kwargs)
        return self._stream(text, kwargs, to_completion_response)  # type: ignore[no-any-return]

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Do what `chat` does without blocking the event loop."""
        return to_chat_response(await self._asum(self._chat_prompt(messages), kwargs), model=self._model_name)

    @closes_its_stream
    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Do what `stream_chat` does without blocking the event loop."""
        return await self._astream(self._chat_prompt(messages), kwargs, to_chat_response)  # type: ignore[no-any-return]

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Do what `complete` does without blocking the event loop."""
        total = await self._asum(self._completion_prompt(prompt, formatted, kwargs), kwargs)
        return to_completion_response(total, model=self._model_name)

    @closes_its_stream
    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Do what `stream_complete` does without blocking the event loop."""
        text = self._completion_prompt(prompt, formatted, kwargs)
        return await self._astream(text, kwargs, to_completion_response)  # type: ignore[no-any-return]
