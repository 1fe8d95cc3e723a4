"""The chat class."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel, agenerate_from_stream, generate_from_stream
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict

from langchain_minicpm.convert import to_chat_chunk, to_template
from langchain_minicpm.settings import MiniCPMSettings

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile


class ChatMiniCPM(MiniCPMSettings, BaseChatModel):
    """A MiniCPM model on this machine as a LangChain chat model.

    Setup:
        `pip install "minicpm-integrations[langchain]"`

    Instantiate:
        `model = ChatMiniCPM(model="openbmb/MiniCPM5-1B", temperature=0, memory_limit="4GiB")`. Arguments: see
        `MiniCPMSettings`. `streaming`: left out, LangChain decides; True streams in `invoke` too, False never streams.

    Invoke, stream, async:
        `model.invoke("Hello")`, `model.stream(...)`, `model.ainvoke(...)`, `model.astream(...)`, `model.batch([...])`.
        A call may change temperature, top_p, top_k, repetition_penalty, seed, max_tokens, stop, enable_thinking and
        model. Leaving a stream early stops the model.

    Reasoning:
        `enable_thinking=True`; it is in `additional_kwargs["reasoning_content"]` and in `content_blocks`.

    Token usage:
        `message.usage_metadata`, with `cache_read` and `reasoning` details.

    Response metadata:
        `model_name`, `model_provider` and `finish_reason` ("stop" or "length").
    """

    model_config = ConfigDict(extra="forbid")

    streaming: bool | None = None

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
        for chunk in self._stream_chunks(to_template(messages), stop, kwargs):
            yield to_chat_chunk(chunk, kwargs.get("model") or self.model)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in self._astream_chunks(to_template(messages), stop, kwargs):
            yield to_chat_chunk(chunk, kwargs.get("model") or self.model)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, **kwargs))


def read_profile(settings: MiniCPMSettings) -> ModelProfile | None:
    """Return what is known of a model without loading or downloading it; None where its config is not here.

    `max_input_tokens` is the window that was asked for or the model's own; a memory limit may make it smaller when the
    model is loaded.
    """
    folder = _find_local_folder(settings.model, settings.revision)
    if folder is None:
        return None
    from minicpm_core.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(folder, family=settings.family)
    text_config = checkpoint.config.get("text_config") or checkpoint.config
    window = settings.engine.context_window if settings.engine is not None else settings.context_window
    window = window or text_config.get("max_position_embeddings")
    limits: ModelProfile = {"max_input_tokens": window, "max_output_tokens": window} if window else {}
    return {
        **limits,
        "name": settings.model,
        "open_weights": True,
        "text_inputs": True,
        "image_inputs": checkpoint.family.vision is not None,
        "image_url_inputs": False,
        "audio_inputs": False,
        "video_inputs": False,
        "pdf_inputs": False,
        "image_tool_message": False,
        "text_outputs": True,
        "reasoning_output": checkpoint.family.thinking,
        "tool_calling": False,
        "structured_output": False,
        "temperature": True,
    }


def _find_local_folder(model: str, revision: str | None) -> Path | None:
    if model == "demo" or Path(model).expanduser().is_dir():
        from minicpm_core.checkpoints import find_folder

        return find_folder(model)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None
