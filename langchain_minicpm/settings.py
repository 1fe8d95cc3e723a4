"""The arguments that the chat and the completion class share, and the way from them to the engine's chunks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from langchain_core.language_models import LangSmithParams
from langchain_core.messages import BaseMessage
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from typing_extensions import Self

from langchain_minicpm.convert import to_template
from langchain_minicpm.tools import to_tool
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.sizes import default_memory_limit
from minicpm_core.types import Chunk, Prompt, Sampling
from minicpm_core.urls import refuse_password

if TYPE_CHECKING:
    from minicpm_core import Engine

LOADING = (
    *"model quantization dtype device memory_limit context_window adapter family revision base_url api_key".split(),
    "max_waiting",
)
"""The arguments of `minicpm_core.load`."""
OF_ONE_MODEL = ("adapter", "family", "revision")
"""Those that say something about one checkpoint, and so do not go with another one."""
SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")
PER_CALL = (*SAMPLING, "max_tokens", "enable_thinking", "logprobs", "top_logprobs", "grammar", "timeout", "model")
"""What a single call may change, besides `stop`."""
_NOT_THE_ANSWERS = ("api_key", "max_waiting", "timeout")
"""Arguments that a cache of answers does not tell apart."""


ModelName = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, os.PathLike) else value)]


def model_field(variable: str, default: str) -> Any:
    """Return the field of a model's name, with its default: an environment variable, or a name."""
    return Field(
        default_factory=lambda: os.environ.get(variable) or default,
        validation_alias=AliasChoices("model", "model_name"),
    )


class MiniCPMSettings(BaseModel):
    """Which model to load and how it answers; the weights are loaded at the first call.

    Args:
        model: folder, hub id or "demo"; default: environment variable MINICPM_MODEL, or "openbmb/MiniCPM5-1B".
        quantization: "int4", "int8", "none", or "auto" (int4 for large weights where bitsandbytes is installed).
        dtype: "auto", "bfloat16", "float16" or "float32".
        device: "auto", "cpu", "cuda" or "cuda:N".
        memory_limit: bytes, or such as "4GiB"; default: environment variable MINICPM_MEMORY_LIMIT.
        context_window: tokens of prompt and answer together.
        adapter: folder of a LoRA adapter (PEFT), or several as {name: folder}; the first is active.
        family: a name of the family table, where the checkpoint is not recognised.
        revision: branch, tag or commit on the hub.
        base_url: an OpenAI-compatible server to ask instead of loading the model.
        api_key: that server's key.
        max_waiting: requests that may wait for their turn (default: 128); those beyond that are a QueueFullError.
        engine: an engine that is loaded already, instead of the arguments above.
        temperature: 0 is greedy decoding; None, here and below, leaves the value to the model family.
        top_p: nucleus size, above 0 to 1.
        top_k: tokens kept; 0 keeps all.
        repetition_penalty: above 0; 1 is off.
        seed: makes sampling reproducible.
        max_tokens: longest answer, in tokens.
        stop: texts that end the answer; they are not part of it.
        enable_thinking: switches the reasoning part on or off where the model has one.
        logprobs: whether the answer comes with the log probability of each of its tokens, as the model itself sees it.
        top_logprobs: how many of the likeliest tokens come with each of them; switches `logprobs` on.
        grammar: a Lark grammar (llguidance) of answers that have neither tools nor a schema to follow.
        timeout: seconds for one answer, the wait for other requests included, loading not; then an AnswerTimeoutError.
        max_retries: accepted as of every LangChain model; a local model is not asked again.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)
    per_call: ClassVar[tuple[str, ...]] = PER_CALL

    model: ModelName = model_field("MINICPM_MODEL", "openbmb/MiniCPM5-1B")
    quantization: str | None = "auto"
    dtype: str = "auto"
    device: str = "auto"
    memory_limit: int | str | None = Field(default_factory=default_memory_limit)
    context_window: int | None = None
    adapter: str | Path | dict[str, str | Path] | None = None
    family: str | None = None
    revision: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    max_waiting: int | None = Field(default=None, ge=0)
    engine: Any = Field(default=None, exclude=True, repr=False)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    enable_thinking: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    grammar: str | None = None
    timeout: float | None = Field(default=None, gt=0)
    max_retries: int | None = None

    @model_validator(mode="after")
    def _check_minicpm_settings(self) -> Self:
        refuse_password(self.base_url, "base_url", "give the server's key as api_key")
        self._sampling({})
        self._logprobs({})
        if self.engine is not None:
            fields = type(self).model_fields
            given = [
                name
                for name in LOADING[1:]
                if getattr(self, name) != fields[name].get_default(call_default_factory=True)
            ]
            if given:
                raise ValueError(f"the given engine is loaded already; leave out {', '.join(given)}")
            self.model = self.engine.checkpoint.name
        if add_version := getattr(self, "_add_version", None):  # langchain-core 1.1 and later
            from langchain_minicpm import __version__

            add_version("minicpm-integrations", __version__)
        return self

    def load_engine(self, model: str | None = None) -> Engine:
        """Return the engine of `model` (None: the own one), loading it the first time.

        Raises:
            ValueError: an argument that `minicpm_core.load` does not accept; see there for other errors.
        """
        if model in (None, self.model) and self.engine is not None:
            return self.engine  # type: ignore[no-any-return]
        from minicpm_core import shared_engine

        arguments = {name: getattr(self, name) for name in LOADING}
        if self.api_key is not None:
            arguments["api_key"] = self.api_key.get_secret_value()
        if model not in (None, self.model):
            arguments |= {"model": model} | dict.fromkeys(OF_ONE_MODEL)
        return shared_engine(**arguments)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the model's own token ids of `text`, nothing added."""
        return self.load_engine().tokenize(text)

    def get_num_tokens(self, text: str) -> int:
        """Return the length of `text` in the model's own tokens; behind `base_url` an estimate."""
        return self.load_engine().count_tokens(text)

    @property
    def takes_grammar(self) -> bool:
        """Whether answers can be made to follow a Lark grammar."""
        return self.base_url is None if self.engine is None else bool(self.engine.takes_grammar)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return the length of the prompt that the chat template makes of the messages, in tokens.

        Args:
            messages: a conversation.
            tools: those that would be bound; they stand in the prompt too.
        """
        options: dict[str, Any] = {"tools": [to_tool(tool) for tool in tools]} if tools else {}
        if pictures := self._pictures({}):
            options["pictures"] = pictures
        return self.load_engine().count_tokens(to_template(messages), **options)

    def _pictures(self, options: Mapping[str, Any]) -> PictureSettings | None:
        """Return how pictures are read where a class reads them and a value differs from the checkpoint's."""
        return None

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        names = [name for name in (*LOADING, *self.per_call, "stop") if name in type(self).model_fields]
        values = {name: getattr(self, name) for name in names if name not in _NOT_THE_ANSWERS}
        if self.engine is not None:
            values["context_window"] = self.engine.context_window
            values["dtype"] = str(getattr(self.engine.model, "dtype", None))
        return values

    def _stream_chunks(self, prompt: Prompt, stop: list[str] | None, options: Mapping[str, Any]) -> Iterator[Chunk]:
        request = self._request(stop, options)
        engine = self.load_engine(options.get("model"))
        stream: Any = engine.stream(prompt, timeout=self._timeout(options), **request)
        with closing(stream) as chunks:
            yield from chunks

    def _generate_batch(
        self, prompts: Sequence[Prompt], stop: list[str] | None, options: Mapping[str, Any]
    ) -> list[Chunk]:
        """Return the answers to several prompts, made side by side; one by one where each has its own `timeout`."""
        if len(prompts) == 1 or self._timeout(options) is not None:
            return [sum(self._stream_chunks(prompt, stop, options), Chunk()) for prompt in prompts]
        return self.load_engine(options.get("model")).generate_batch(
            prompts, batch_size=len(prompts), **self._request(stop, options)
        )

    async def _agenerate_batch(
        self, prompts: Sequence[Prompt], stop: list[str] | None, options: Mapping[str, Any]
    ) -> list[Chunk]:
        if len(prompts) == 1 or self._timeout(options) is not None:
            return [await self._sum_async(prompt, stop, options) for prompt in prompts]
        engine = await asyncio.to_thread(self.load_engine, options.get("model"))
        return await engine.agenerate_batch(prompts, batch_size=len(prompts), **self._request(stop, options))

    async def _sum_async(self, prompt: Prompt, stop: list[str] | None, options: Mapping[str, Any]) -> Chunk:
        answer = Chunk()
        async for chunk in self._astream_chunks(prompt, stop, options):
            answer += chunk
        return answer

    async def _astream_chunks(
        self, prompt: Prompt, stop: list[str] | None, options: Mapping[str, Any]
    ) -> AsyncIterator[Chunk]:
        request = self._request(stop, options)
        engine = await asyncio.to_thread(self.load_engine, options.get("model"))
        stream: Any = engine.astream(prompt, timeout=self._timeout(options), **request)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                yield chunk

    def _request(self, stop: list[str] | None, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the engine's options; who reads more options than these adds them."""
        self._refuse_unknown(options)
        request = {
            "sampling": self._sampling(options),
            "stop": self.stop if stop is None else stop,
            "enable_thinking": options.get("enable_thinking", self.enable_thinking),
        }
        wanted = {
            "logprobs": self._logprobs(options),
            "grammar": options.get("grammar", self.grammar),
            "pictures": self._pictures(options),
        }
        return request | {name: value for name, value in wanted.items() if value is not None}

    def _refuse_unknown(self, options: Mapping[str, Any]) -> None:
        unknown = sorted(options.keys() - {*self.per_call, "stream"})  # "stream" is LangChain's own switch
        if unknown:
            raise TypeError(f"unknown arguments {', '.join(unknown)}; a call accepts: stop, {', '.join(self.per_call)}")

    def _logprobs(self, options: Mapping[str, Any]) -> int | None:
        """Return the engine's number: 0 for the chosen tokens alone, None for none."""
        wanted = options.get("logprobs", self.logprobs)
        top = options.get("top_logprobs", self.top_logprobs)
        if top is not None and (isinstance(top, bool) or not isinstance(top, int) or not 0 <= top <= 20):
            raise ValueError(f"top_logprobs is {top!r}; accepted: 0 to 20")
        if wanted not in (None, True, False):
            raise ValueError(f"logprobs is {wanted!r}; accepted: True or False; top_logprobs tells how many")
        if top and wanted is False:
            raise ValueError(f"top_logprobs is {top}, but logprobs is False; leave one of them out")
        return top or 0 if wanted or (wanted is None and top is not None) else None

    def _sampling(self, options: Mapping[str, Any]) -> Sampling:
        values = {name: options.get(name, getattr(self, name)) for name in SAMPLING}
        return Sampling(**values, max_new_tokens=options.get("max_tokens", self.max_tokens))

    def _timeout(self, options: Mapping[str, Any]) -> float | None:
        seconds: float | None = options.get("timeout", self.timeout)
        return seconds

    def _tracing_params(
        self, kind: Literal["chat", "llm"], stop: list[str] | None, options: Mapping[str, Any]
    ) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider="minicpm", ls_model_name=options.get("model") or self.model, ls_model_type=kind
        )
        sampling = self._sampling(options)
        if sampling.temperature is not None:
            params["ls_temperature"] = sampling.temperature
        if sampling.max_new_tokens is not None:
            params["ls_max_tokens"] = sampling.max_new_tokens
        if ends := self.stop if stop is None else stop:
            params["ls_stop"] = ends
        return params
