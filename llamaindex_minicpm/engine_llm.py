"""What `MiniCPM` and `MiniCPMLLM` share: arguments, limits, and LlamaIndex's eight ways to ask over one engine."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM, default_completion_to_prompt

from llamaindex_minicpm.closing import closes_its_stream, opened
from llamaindex_minicpm.convert import to_chat_response, to_completion_response, to_messages
from llamaindex_minicpm.limits import plan_limits
from minicpm_core.types import Chunk, Prompt, Sampling

if TYPE_CHECKING:
    from minicpm_core.engine import Engine

DEFAULT_MODEL = "openbmb/MiniCPM5-1B"
LOAD_ARGUMENTS = (
    "model",
    "quantization",
    "dtype",
    "device",
    "memory_limit",
    "context_window",
    "adapter",
    "family",
    "revision",
    "base_url",
    "api_key",
)
SAMPLING_ARGUMENTS = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")
CALL_ARGUMENTS = (*SAMPLING_ARGUMENTS, "max_tokens", "stop", "enable_thinking")
_IGNORED = ("extra_headers",)  # LlamaIndex's document extractor sends HTTP headers to any model

_tokenizer_lock = threading.Lock()  # fast tokenizers are not safe to share between threads
R = TypeVar("R", ChatResponse, CompletionResponse)


class EngineLLM(LLM):
    """Fields and requests that `MiniCPM` and `MiniCPMLLM` share; weights load at the first call."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str = Field(
        default_factory=lambda: os.environ.get("MINICPM_MODEL") or DEFAULT_MODEL,
        description='Folder in the hub\'s layout, hub id, or "demo".',
    )
    quantization: str | None = Field(default="auto", description='"auto", "int4", "int8" or "none".')
    dtype: str = Field(default="auto", description='"auto", "bfloat16", "float16" or "float32".')
    device: str = Field(default="auto", description='"auto", "cpu", "cuda" or "cuda:N".')
    memory_limit: int | str | None = Field(
        default_factory=lambda: os.environ.get("MINICPM_MEMORY_LIMIT") or None,
        description='Bytes, or such as "4GiB"; the context window is fitted to it.',
    )
    context_window: int | None = Field(default=None, description="Tokens of prompt and answer together.")
    adapter: str | dict[str, str] | None = Field(
        default=None, description="PEFT folder (LoRA), or several as {name: folder}; the first is active."
    )
    family: str | None = Field(default=None, description="Family name, where the checkpoint is not recognised.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    base_url: str | None = Field(default=None, description="Not supported yet.")
    api_key: str | None = Field(default=None, description="Not supported yet.", exclude=True, repr=False)
    engine: Any = Field(default=None, description="A loaded engine to use instead.", exclude=True, repr=False)

    temperature: float | None = Field(default=None, description="0 is greedy; None is the family's recommendation.")
    top_p: float | None = Field(default=None, description="Nucleus size, above 0 to 1.")
    top_k: int | None = Field(default=None, description="Tokens kept; 0 keeps all.")
    repetition_penalty: float | None = Field(default=None, description="1 is off.")
    max_tokens: int | None = Field(default=None, description="Most tokens to generate.")
    seed: int | None = Field(default=None, description="Makes sampling reproducible.")
    stop: list[str] | None = Field(default=None, description="Texts that end the answer and are not part of it.")
    enable_thinking: bool | None = Field(default=None, description="Reasoning on or off, where the family has it.")
    raw: bool = Field(default=False, description="`complete` continues the prompt as it stands, without template.")

    _tokenizer: Any = PrivateAttr(default=None)
    _window: int | None = PrivateAttr(default=None)
    _num_output: int | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, cls):  # a field of another model holds a ready one
            return values
        if unknown := [name for name in values if name not in cls.model_fields]:
            accepted = ", ".join(sorted(cls.model_fields))
            raise ValueError(f"unknown arguments: {', '.join(unknown)}; accepted: {accepted}")
        return values

    @field_validator("model", "adapter", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: str(folder) for name, folder in value.items()}
        return str(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _check(self) -> EngineLLM:
        self._sampling({})
        if isinstance(self.stop, list) and not all(self.stop):
            raise ValueError(f"stop is {self.stop!r}; the texts must not be empty")
        given = [name for name in LOAD_ARGUMENTS if name in self.model_fields_set and getattr(self, name) is not None]
        if self.engine is not None and given:
            raise ValueError(f"engine= is a loaded model; leave out {', '.join(given)}")
        return self

    # What LlamaIndex asks about the model

    @property
    def metadata(self) -> LLMMetadata:
        """The model's limits; the context window is the one that fits the memory."""
        window, num_output = self._limits()
        return LLMMetadata(
            context_window=window,
            num_output=num_output,
            is_chat_model=True,
            is_function_calling_model=False,
            model_name=self._model_name,
        )

    def to_payload(self) -> dict[str, Any]:
        """Return what events tell about the model; nothing is loaded or planned for it."""
        known = {"context_window": self._window} if self._window else {}
        asked = {name: value for name in CALL_ARGUMENTS if (value := getattr(self, name)) is not None}
        return {"class_name": self.class_name(), "model_name": self._model_name, "is_chat_model": True} | known | asked

    @property
    def _model_name(self) -> str:
        return str(self.engine.checkpoint.name) if self.engine is not None else self.model

    def _limits(self) -> tuple[int, int]:
        """Return (context window, most tokens of an answer) without reading weights where that is possible."""
        if self._window is None and self.engine is None:
            self._window, self._num_output = plan_limits(**self._load_arguments()) or (None, None)
        if self._window is None:
            self.load_engine()
        window, recommended = self._window or 0, self._num_output or 0
        return window, min(self.max_tokens, window) if self.max_tokens else min(recommended, max(window // 4, 1))

    # Requests

    def load_engine(self) -> Engine:
        """Return the engine, loading the weights the first time; equal arguments share one engine.

        Raises:
            FileNotFoundError, ConnectionError, ValueError, MemoryError: see `minicpm_core.load`.
        """
        engine: Engine | None = self.engine
        if engine is None:
            from minicpm_core.registry import shared_engine

            engine = shared_engine(**self._load_arguments())
        self._window, self._num_output = engine.context_window, engine.family.sampling.max_new_tokens
        return engine

    def _load_arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in LOAD_ARGUMENTS}

    def count_tokens(self, text: str | Sequence[ChatMessage]) -> int:
        """Return the tokens of a text as it stands, or of messages with the chat template around them."""
        return self.load_engine().count_tokens(text if isinstance(text, str) else to_messages(text))

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text as it stands; loads the tokenizer and no weights."""
        if self.engine is not None:
            return list(self.engine.tokenize(text))
        with _tokenizer_lock:
            if self._tokenizer is None:
                from minicpm_core.checkpoints import load_tokenizer, open_checkpoint

                checkpoint = open_checkpoint(self.model, family=self.family, revision=self.revision)
                self._tokenizer = load_tokenizer(checkpoint)
            return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _sampling(self, given: dict[str, Any]) -> Sampling:
        values = {name: self._choose(name, given) for name in SAMPLING_ARGUMENTS}
        return Sampling(**values, max_new_tokens=self._choose("max_tokens", given))

    def _choose(self, name: str, given: dict[str, Any]) -> Any:
        value = given.get(name)
        return getattr(self, name) if value is None else value

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the engine's options of one call; what is not given is the constructor's."""
        if unknown := [name for name in given if name not in CALL_ARGUMENTS + _IGNORED]:
            raise ValueError(f"unknown arguments: {', '.join(unknown)}; accepted: {', '.join(CALL_ARGUMENTS)}")
        return {
            "sampling": self._sampling(given),
            "stop": self._choose("stop", given),
            "enable_thinking": self._choose("enable_thinking", given),
        }

    def _chat_prompt(self, messages: Sequence[ChatMessage]) -> Prompt:
        """Return the prompt of a chat; the system prompt comes first where the messages bring none."""
        if self.messages_to_prompt not in (None, generic_messages_to_prompt):
            return str(self.messages_to_prompt(messages))
        has_system = any(m.role in (MessageRole.SYSTEM, MessageRole.DEVELOPER) for m in messages)
        return to_messages(messages if has_system else self._extend_messages(list(messages)))

    def _completion_prompt(self, prompt: str, formatted: bool) -> Prompt:
        """Return one user turn, or the text as it stands when it is formatted already."""
        if self.completion_to_prompt not in (None, default_completion_to_prompt) and not formatted:
            return str(self.completion_to_prompt(prompt))
        if self.raw or formatted:
            return prompt
        return self._chat_prompt([ChatMessage(role=MessageRole.USER, content=prompt)])

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
            total = Chunk()
            with closing(chunks):  # type: ignore[type-var]
                for piece in chunks:
                    total += piece
                    yield respond(total, piece=piece, model=self._model_name)

        return opened(run())

    async def _astream(self, prompt: Prompt, given: dict[str, Any], respond: Callable[..., R]) -> Any:
        options = self._options(given)
        engine = await asyncio.to_thread(self.load_engine)

        async def run() -> AsyncIterator[R]:
            total = Chunk()
            async with aclosing(engine.astream(prompt, **options)) as chunks:  # type: ignore[type-var]
                async for piece in chunks:
                    total += piece
                    yield respond(total, piece=piece, model=self._model_name)

        return opened(run())

    # LlamaIndex's eight ways to ask

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the messages."""
        return to_chat_response(self._sum(self._chat_prompt(messages), kwargs), model=self._model_name)

    @closes_its_stream
    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Yield the answer so far, with `delta` as its last piece."""
        return self._stream(self._chat_prompt(messages), kwargs, to_chat_response)  # type: ignore[no-any-return]

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer the prompt as one user turn; `formatted` continues it as it stands."""
        total = self._sum(self._completion_prompt(prompt, formatted), kwargs)
        return to_completion_response(total, model=self._model_name)

    @closes_its_stream
    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Yield the answer so far, with `delta` as its last piece."""
        text = self._completion_prompt(prompt, formatted)
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
        total = await self._asum(self._completion_prompt(prompt, formatted), kwargs)
        return to_completion_response(total, model=self._model_name)

    @closes_its_stream
    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Do what `stream_complete` does without blocking the event loop."""
        text = self._completion_prompt(prompt, formatted)
        return await self._astream(text, kwargs, to_completion_response)  # type: ignore[no-any-return]
