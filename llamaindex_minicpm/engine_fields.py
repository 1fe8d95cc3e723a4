"""The arguments that `MiniCPM` and `MiniCPMLLM` share, the model's limits, and the engine behind them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.base.llms.types import ChatMessage, LLMMetadata
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator
from llama_index.core.llms.llm import LLM

from llamaindex_minicpm.convert import to_messages
from llamaindex_minicpm.limits import plan_limits
from llamaindex_minicpm.tools import to_tools
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.sizes import default_memory_limit
from minicpm_core.types import Sampling
from minicpm_core.urls import refuse_password

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
    "max_waiting",
)
SAMPLING_ARGUMENTS = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")
PICTURE_ARGUMENTS = tuple(field.name for field in fields(PictureSettings))
SHOWN_ARGUMENTS = (*SAMPLING_ARGUMENTS, "max_tokens", "stop", "enable_thinking")

_tokenizer_lock = threading.Lock()  # fast tokenizers are not safe to share between threads
_known_lock = threading.Lock()


class EngineFields(LLM):
    """Arguments, limits and the engine; weights load at the first call."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)
    calls_functions: ClassVar[bool] = False

    model: str = Field(
        default_factory=lambda: os.environ.get("MINICPM_MODEL") or DEFAULT_MODEL,
        description='Folder in the hub\'s layout, hub id, or "demo".',
    )
    quantization: str | None = Field(default="auto", description='"auto", "int4", "int8" or "none".')
    dtype: str = Field(default="auto", description='"auto", "bfloat16", "float16" or "float32".')
    device: str = Field(default="auto", description='"auto", "cpu", "cuda" or "cuda:N".')
    memory_limit: int | str | None = Field(
        default_factory=default_memory_limit,
        description='Bytes, or such as "4GiB"; the context window is fitted to it.',
    )
    context_window: int | None = Field(default=None, description="Tokens of prompt and answer together.")
    adapter: str | dict[str, str] | None = Field(
        default=None, description="PEFT folder (LoRA), or several as {name: folder}; the first is active."
    )
    family: str | None = Field(default=None, description="Family name, where the checkpoint is not recognised.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    base_url: str | None = Field(default=None, description="An OpenAI-compatible server to ask instead of loading.")
    api_key: str | None = Field(default=None, description="That server's key.", exclude=True, repr=False)
    max_waiting: int | None = Field(
        default=None, ge=0, description="Requests that may wait for their turn (128); more are a QueueFullError."
    )
    engine: Any = Field(default=None, description="A loaded engine to use instead.", exclude=True, repr=False)

    temperature: float | None = Field(default=None, description="0 is greedy; None is the family's recommendation.")
    top_p: float | None = Field(default=None, description="Nucleus size, above 0 to 1.")
    top_k: int | None = Field(default=None, description="Tokens kept; 0 keeps all.")
    repetition_penalty: float | None = Field(default=None, description="1 is off.")
    max_tokens: int | None = Field(default=None, description="Most tokens to generate.")
    seed: int | None = Field(default=None, description="Makes sampling reproducible.")
    stop: list[str] | None = Field(default=None, description="Texts that end the answer and are not part of it.")
    timeout: float | None = Field(
        default=None, gt=0, description="Seconds for one answer, its wait included; then an AnswerTimeoutError."
    )
    enable_thinking: bool | None = Field(default=None, description="Reasoning on or off, where the family has it.")
    tool_choice: Any = Field(
        default=None,
        description='Where tools are given: "auto", "none", "any" (or "required"), the name of one, or a dict.',
    )
    parallel_tool_calls: bool | None = Field(default=None, description="Whether an answer may hold several calls.")
    grammar: str | None = Field(
        default=None, description="Lark grammar of answers that have neither tools nor a schema to follow."
    )
    logprobs: bool | None = Field(default=None, description="Whether responses tell how likely each token was.")
    top_logprobs: int | None = Field(default=None, ge=0, description="The likeliest tokens to tell in each place.")
    max_slice_nums: int | None = Field(default=None, description="Most tiles that a picture is cut into.")
    downsample_mode: str | None = Field(default=None, description='"16x", or "4x" for more tokens of a picture.')
    use_image_id: bool | None = Field(default=None, description="Whether the prompt numbers pictures.")
    max_num_frames: int | None = Field(default=None, description="Most frames that are taken from a video's file.")
    stack_frames: int | None = Field(default=None, description="Frames of each second of a video's file.")
    allow_private_urls: bool = Field(default=False, description="Whether URLs may lead into private networks.")
    raw: bool = Field(default=False, description="`complete` continues the prompt as it stands, without template.")

    _tokenizer: Any = PrivateAttr(default=None)
    _window: int | None = PrivateAttr(default=None)
    _num_output: int | None = PrivateAttr(default=None)
    _known_of: dict[str, Any] | None = PrivateAttr(default=None)

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
    def _check(self) -> EngineFields:
        refuse_password(self.base_url, "base_url", "give the server's key as api_key")
        if self.engine is not None and not hasattr(self.engine, "checkpoint"):
            raise ValueError(f"engine is of type {type(self.engine).__name__}; give what minicpm_core.load returns")
        self._sampling({})
        self._pictures({})
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
            is_function_calling_model=self.calls_functions,
            model_name=self._model_name,
        )

    def to_payload(self) -> dict[str, Any]:
        """Return what events tell about the model; nothing is loaded or planned for it."""
        self._forget_others()
        known = {"context_window": self._window} if self._window else {}
        asked = {name: value for name in SHOWN_ARGUMENTS if (value := getattr(self, name)) is not None}
        return {"class_name": self.class_name(), "model_name": self._model_name, "is_chat_model": True} | known | asked

    @property
    def _model_name(self) -> str:
        return str(self.engine.checkpoint.name) if self.engine is not None else self.model

    def _limits(self) -> tuple[int, int]:
        """Return (context window, most tokens of an answer) without reading weights where that is possible."""
        self._forget_others()
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
        self._forget_others()
        self._window, self._num_output = engine.context_window, engine.family.sampling.max_new_tokens
        return engine

    @property
    def takes_grammar(self) -> bool:
        """Whether answers can be made to follow a Lark grammar."""
        return self.base_url is None if self.engine is None else bool(self.engine.takes_grammar)

    def _load_arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in LOAD_ARGUMENTS}

    def _forget_others(self) -> None:
        """Forget what was found out about another model: an assignment or `model_copy(update=)` came in between."""
        asked = {**self._load_arguments(), "engine": self.engine}
        with _known_lock:
            if asked != self._known_of:
                self._window = self._num_output = self._tokenizer = None
                self._known_of = asked

    def count_tokens(self, text: str | Sequence[ChatMessage], tools: Sequence[Any] | None = None) -> int:
        """Return the tokens of a text as it stands, or of messages with the chat template and `tools` around them."""
        engine = self.load_engine()
        if isinstance(text, str):
            if tools:
                raise ValueError("tools stand in the prompt of a chat; give messages to count them with")
            return engine.count_tokens(text)
        options: dict[str, Any] = {"tools": to_tools(tools)} if tools else {}
        return engine.count_tokens(to_messages(text), **options, **self._pictures({}))

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text as it stands; loads the tokenizer and no weights."""
        if self.engine is not None or self.base_url is not None:
            return list(self.load_engine().tokenize(text))
        with _tokenizer_lock:
            self._forget_others()
            if self._tokenizer is None:
                from minicpm_core.checkpoints import load_tokenizer, open_checkpoint

                checkpoint = open_checkpoint(self.model, family=self.family, revision=self.revision)
                self._tokenizer = load_tokenizer(checkpoint)
            return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _sampling(self, given: Mapping[str, Any]) -> Sampling:
        """Return how tokens are drawn in a call; what is not given is the constructor's."""
        values = {name: self._choose(name, given) for name in SAMPLING_ARGUMENTS}
        return Sampling(**values, max_new_tokens=self._choose("max_tokens", given))

    def _pictures(self, given: Mapping[str, Any]) -> dict[str, PictureSettings]:
        """Return the engine's option that tells how pictures are read, where a value is not the checkpoint's."""
        chosen = PictureSettings(**{name: self._choose(name, given) for name in PICTURE_ARGUMENTS})
        return {"pictures": chosen} if chosen != PictureSettings() else {}

    def _choose(self, name: str, given: Mapping[str, Any]) -> Any:
        """Return an argument of a call, or the constructor's where it is not given."""
        value = given.get(name)
        return getattr(self, name) if value is None else value
