"""MiniCPM as LlamaIndex language models: `MiniCPM` (the usual one) and `MiniCPMLLM` (a CustomLLM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from llamaindex_minicpm.engine_llm import EngineLLM

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool


class MiniCPM(EngineLLM, FunctionCallingLLM):
    """A local MiniCPM model.

    Args:
        model, quantization, dtype, device, memory_limit, context_window, adapter, family, revision, base_url, api_key:
            see `minicpm_core.load`. The environment variables MINICPM_MODEL and MINICPM_MEMORY_LIMIT are the defaults.
        temperature, top_p, top_k, repetition_penalty, max_tokens, seed, stop, enable_thinking: how answers are made;
            each can be given per call. None is the family's recommendation.
        raw: `complete` continues the prompt as it stands, without the chat template.
        engine: a loaded engine to use instead of loading one.
        **LlamaIndex's own: system_prompt, callback_manager, output_parser and so on.

    Example:
        >>> llm = MiniCPM(model="demo", memory_limit="4GiB")  # doctest: +SKIP
        >>> print(llm.complete("Hello"))  # doctest: +SKIP
    """

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "MiniCPM"

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        raise ValueError("tools are not supported by this version; call chat() without them")

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the response's tool calls: none in this version, which is an error unless it is switched off."""
        if error_on_no_tool_call:
            raise ValueError("the response holds no tool calls: tools are not supported by this version")
        return []


class MiniCPMLLM(EngineLLM, CustomLLM):
    """The same model for code that expects a CustomLLM; its arguments are those of `MiniCPM`."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "MiniCPMLLM"
