"""The chat class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, model_validator
from typing_extensions import Self

from langchain_minicpm.answers import ChatChunkWriter, to_chat_result
from langchain_minicpm.batched_chat import BatchedChatModel
from langchain_minicpm.batching import Asked, take_seat
from langchain_minicpm.convert import to_template
from langchain_minicpm.profiles import read_profile
from langchain_minicpm.settings import PER_CALL, MiniCPMSettings, ModelName, model_field
from langchain_minicpm.structured import Method, SchemaLike, build_structured
from langchain_minicpm.tools import ToolLike, to_response_format, to_response_schema, to_tool, to_tool_choice
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.types import Chunk

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile

TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "response_format")
PICTURES = tuple(field.name for field in fields(PictureSettings))


class ChatMiniCPM(MiniCPMSettings, BatchedChatModel):
    """A MiniCPM model on this machine as a LangChain chat model.

    Setup:
        `pip install "minicpm-integrations[langchain]"`

    Instantiate:
        `model = ChatMiniCPM(model="openbmb/MiniCPM5-1B", temperature=0, memory_limit="4GiB")`. Arguments: see
        `MiniCPMSettings`. `streaming`: left out, LangChain decides; True streams in `invoke` too, False never streams.
        `tool_choice`, `parallel_tool_calls`: used where tools are bound and neither `bind_tools` nor the call says
        otherwise.

    Invoke, stream, async:
        `model.invoke("Hello")`, `model.stream(...)`, `model.ainvoke(...)`, `model.astream(...)`, `model.batch([...])`.
        A call may change temperature, top_p, top_k, repetition_penalty, seed, max_tokens, stop, enable_thinking,
        logprobs, top_logprobs and model. Leaving a stream early stops the model.

    Batch:
        `model.batch([...])` and `abatch` answer up to `config["max_concurrency"]` inputs (default 8) side by side.

    Tool calling:
        `model.bind_tools([my_tool])`, then `message.tool_calls`. Calls are written under a grammar made from the tools'
        schemas. One that was cut off, or breaks a rule that a grammar cannot express, is in `invalid_tool_calls`.

    Structured output:
        `model.with_structured_output(Schema).invoke(...)`: the answer follows the schema.

    Reasoning:
        `enable_thinking=True`; it is in `additional_kwargs["reasoning_content"]` and in `content_blocks`.

    Pictures:
        Where the model can see, contents hold blocks of type image, image_url, video and file (PDFs): LangChain's,
        OpenAI's or Anthropic's, with a path, URL, base64 text, bytes, PIL image or array. `max_slice_nums`,
        `downsample_mode`, `use_image_id`, `max_num_frames`, `stack_frames` and `allow_private_urls` (see
        `minicpm_core.PictureSettings`) are arguments of the constructor and of a call.
        `get_num_tokens_from_messages` tells what pictures cost, and runs nothing.

    Token usage:
        `message.usage_metadata`, with `cache_read` and `reasoning` details.

    Logprobs:
        `logprobs=True`, `top_logprobs=5`: `response_metadata["logprobs"]["content"]`, in OpenAI's form.

    Response metadata:
        `model_name`, `model_provider` and `finish_reason` ("stop", "length" or "tool_calls").
    """

    model_config = ConfigDict(extra="forbid")
    per_call: ClassVar[tuple[str, ...]] = (*PER_CALL, *TOOLS, *PICTURES)

    streaming: bool | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_slice_nums: int | None = None
    downsample_mode: str | None = None
    use_image_id: bool | None = None
    max_num_frames: int | None = None
    stack_frames: int | None = None
    allow_private_urls: bool = False

    @model_validator(mode="after")
    def _check_pictures(self) -> Self:
        self._pictures({})
        return self

    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: Any = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools that it may call.

        Args:
            tools: LangChain tools, pydantic classes, TypedDicts, functions, JSON schemas with a title, OpenAI or
                Anthropic dicts.
            tool_choice: "auto", "none", "any" (also "required" and True: at least one call), a tool's name, or OpenAI's
                or Anthropic's dict; None takes the constructor's.
            parallel_tool_calls: False allows one call at a time; None takes the constructor's.
            strict: accepted for other providers' sake; calls always follow the schema.
            **kwargs: what else a call accepts, such as `response_format`: with tools as well, the answer is calls or
                JSON of that schema.

        Raises:
            ValueError: a tool or choice that is not accepted, or the name of a tool that is not among `tools`.
            TypeError: an unknown argument.
        """
        options = {name: value for name, value in kwargs.items() if value is not None}
        options["tools"] = [to_tool(tool) for tool in tools]
        if (choice := to_tool_choice(tool_choice, options["tools"])) is not None:
            options["tool_choice"] = choice
        if parallel_tool_calls is not None:
            options["parallel_tool_calls"] = parallel_tool_calls
        if "response_format" in options:
            options["response_format"] = to_response_format(options["response_format"])
        return self.bind(**self._check_bound(options))

    def with_structured_output(
        self,
        schema: SchemaLike | None = None,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        tools: Sequence[ToolLike] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose answers follow a schema, by a grammar.

        Args:
            schema: a pydantic class (2 or 1; answers are instances), a TypedDict or a JSON schema (answers are dicts).
            include_raw: answer {"raw": message, "parsed": answer or None, "parsing_error": error or None}.
            method: "json_schema": the answer's text is JSON; "function_calling": it is the arguments of a forced tool
                call; "json_mode": JSON too, of the schema where one is given.
            strict: accepted for other providers' sake; answers always follow the schema.
            tools: with "json_schema", tools that may be called instead; such an answer is parsed to None.
            **kwargs: what else a call accepts.

        Raises:
            ValueError: a schema or method that is not accepted.
            TypeError: an unknown argument.
            OutputParserException: raised by calls whose answer was cut off, or breaks a rule that a grammar cannot
                express, such as `uniqueItems` or a pydantic validator; its text says which.
        """
        return build_structured(
            self, schema, include_raw=include_raw, method=method, strict=strict, tools=tools, **kwargs
        )

    @property
    def _llm_type(self) -> str:
        return "minicpm-chat"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._tracing_params("chat", stop, kwargs)

    def _resolve_model_profile(self) -> ModelProfile | None:
        return read_profile(self)

    # LangChain reports the tokens of `_stream` to the callbacks itself; doing it here would report them twice.

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if seat := take_seat(self):
            seat.leave()  # what is streamed is not answered with the batch
        writer = ChatChunkWriter(kwargs.get("model") or self.model)
        for chunk in self._stream_chunks(to_template(messages), stop, kwargs):
            yield from writer.push(chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if seat := take_seat(self):
            seat.leave()
        writer = ChatChunkWriter(kwargs.get("model") or self.model)
        async for chunk in self._astream_chunks(to_template(messages), stop, kwargs):
            for piece in writer.push(chunk):
                yield piece

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        prompt = to_template(messages)
        if seat := take_seat(self):
            # An input that the model cannot take must not take the others with it.
            self.load_engine(kwargs.get("model")).prepare(prompt, **self._request(stop, kwargs))
            answer = seat.ask(Asked(prompt, stop, kwargs)).result()
        else:
            answer = sum(self._stream_chunks(prompt, stop, kwargs), Chunk())
        return to_chat_result(answer, kwargs.get("model") or self.model)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        prompt = to_template(messages)
        if seat := take_seat(self):
            engine = await asyncio.to_thread(self.load_engine, kwargs.get("model"))
            await asyncio.to_thread(engine.prepare, prompt, **self._request(stop, kwargs))
            answer = await asyncio.wrap_future(seat.ask(Asked(prompt, stop, kwargs)))
        else:
            answer = await self._sum_async(prompt, stop, kwargs)
        return to_chat_result(answer, kwargs.get("model") or self.model)

    def _answer_batch(self, asked: list[Asked]) -> list[Chunk]:
        return self._generate_batch([one.prompt for one in asked], asked[0].stop, asked[0].options)

    async def _aanswer_batch(self, asked: list[Asked]) -> list[Chunk]:
        return await self._agenerate_batch([one.prompt for one in asked], asked[0].stop, asked[0].options)

    def _request(self, stop: list[str] | None, options: Mapping[str, Any]) -> dict[str, Any]:
        request = super()._request(stop, options)
        tools = [to_tool(tool) for tool in options.get("tools") or ()]
        choice = to_tool_choice(options.get("tool_choice"), tools)
        if tools:
            request["tools"] = tools
            request["tool_choice"] = choice or to_tool_choice(self.tool_choice, tools) or "auto"
            parallel = options.get("parallel_tool_calls", self.parallel_tool_calls)
            request["parallel_tool_calls"] = parallel is not False
        schema = to_response_schema(options.get("response_format"))
        if schema is not None:
            request["response_schema"] = schema
        if (tools or schema is not None) and "grammar" not in options:
            request.pop("grammar", None)
        return request

    def _pictures(self, options: Mapping[str, Any]) -> PictureSettings | None:
        chosen = PictureSettings(**{name: options.get(name, getattr(self, name)) for name in PICTURES})
        return chosen if chosen != PictureSettings() else None

    def _check_bound(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return options for `bind`, refusing at once what a call would refuse."""
        given = {name: value for name, value in options.items() if name not in ("ls_structured_output_format", "stop")}
        self._request(None, given)
        return options


class ChatMiniCPMV(ChatMiniCPM):
    """A MiniCPM-V model on this machine: `ChatMiniCPM` with a default model that sees.

    Instantiate:
        `model = ChatMiniCPMV(memory_limit="6GiB", max_slice_nums=4)`. Default: environment variable
        MINICPM_VISION_MODEL, or "openbmb/MiniCPM-V-4.6".

    Ask about a picture:
        `model.invoke([{"role": "user", "content": [{"type": "image", "path": "cat.jpg"}, "What is it?"]}])`

    Read a picture into a class:
        `model.with_structured_output(Receipt).invoke(...)`; the answer follows the schema.
    """

    model: ModelName = model_field("MINICPM_VISION_MODEL", "openbmb/MiniCPM-V-4.6")
