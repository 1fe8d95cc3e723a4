"""MiniCPM as LlamaIndex language models: `MiniCPM` (the usual one) and `MiniCPMLLM` (a CustomLLM)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from llamaindex_minicpm.engine_llm import EngineLLM
from llamaindex_minicpm.tools import describe_invalid, select_tools, to_tools

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse
    from llama_index.core.tools.types import BaseTool

_logger = logging.getLogger(__name__)


class MiniCPM(EngineLLM, FunctionCallingLLM):
    """A local MiniCPM model.

    Tool calls and structured answers are decoded under a grammar made of their schemas, so they are valid with any
    weights. A call that was cut off by `max_tokens`, or that breaks a rule no grammar can express (`uniqueItems`,
    `not`), is never executed: it stands in `message.additional_kwargs["invalid_tool_calls"]` with its text and error.

    Args:
        model, quantization, dtype, device, memory_limit, context_window, adapter, family, revision, base_url, api_key,
            max_waiting: see `minicpm_core.load`. The environment variables MINICPM_MODEL and MINICPM_MEMORY_LIMIT are
            the defaults.
        temperature, top_p, top_k, repetition_penalty, max_tokens, seed, stop, enable_thinking, timeout: how answers are
            made, and the seconds for one; each can be given per call. None is the family's recommendation.
        tool_choice, parallel_tool_calls: for calls with tools that say nothing else. `tool_choice` is "auto", "none",
            "any" (or "required"), the name of a tool, or OpenAI's dict.
        grammar: a Lark grammar for answers that have neither tools nor a schema, such as `react_grammar(tools)`.
        max_slice_nums, downsample_mode, use_image_id, max_num_frames, stack_frames, allow_private_urls: how pictures
            are read where the model sees (ImageBlock, VideoBlock, DocumentBlock); see `minicpm_core.PictureSettings`.
        logprobs, top_logprobs: responses tell how likely each token was, and the likeliest others in its place.
        raw: `complete` continues the prompt as it stands, without the chat template.
        engine: a loaded engine to use instead of loading one.
        **LlamaIndex's own: system_prompt, callback_manager, output_parser and so on.

    Example:
        >>> llm = MiniCPM(model="demo", memory_limit="4GiB")  # doctest: +SKIP
        >>> print(llm.complete("Hello"))  # doctest: +SKIP

    Tools:
        >>> from llama_index.core.agent.workflow import FunctionAgent  # doctest: +SKIP
        >>> agent = FunctionAgent(tools=[add], llm=llm)  # doctest: +SKIP
        >>> print(await agent.run("What is 2 + 3?"))  # doctest: +SKIP

    Structured output:
        >>> llm.structured_predict(Person, PromptTemplate("Who is it? {text}"), text=text)  # doctest: +SKIP
        >>> llm.as_structured_llm(Person).complete("Ada, 36 years").raw  # doctest: +SKIP
    """

    calls_functions: ClassVar[bool] = True

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
        tool_choice: Any = None,
        error_on_invalid_tool_call: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of `chat` that the tools ask for; the history stays as it is."""
        if tool_required and tool_choice == "none":
            raise ValueError('tool_required asks for a tool call and tool_choice="none" forbids it; leave one out')
        if tool_required and tool_choice in (None, "auto"):
            tool_choice = "any"
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        asked = {} if tool_choice is None else {"tool_choice": tool_choice}
        return {
            "messages": [*(chat_history or ()), *([user_msg] if user_msg else ())],
            "tools": to_tools(tools),
            "parallel_tool_calls": allow_parallel_tool_calls and self.parallel_tool_calls is not False,
            **asked,
            **kwargs,
        }

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        error_on_invalid_tool_call: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        if error_on_invalid_tool_call and (reason := describe_invalid(response.message)):
            raise ValueError(reason)
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the response's whole and valid tool calls, of a finished answer or any chunk of a stream.

        Args:
            response: what `chat` or `stream_chat` gave.
            error_on_no_tool_call: whether it is an error that there is none.
            **kwargs: not used.

        Raises:
            ValueError: there is none; it says why where there is an invalid one.
        """
        selections = select_tools(response.message)
        invalid = describe_invalid(response.message)
        if not selections and error_on_no_tool_call:
            raise ValueError(f"the response holds no tool call; {invalid or f'it says {response.message.content!r}'}")
        if invalid:  # an agent goes on with the others, or ends
            _logger.warning("not executed: %s", invalid)
        return selections

    def predict_and_call(self, *args: Any, **kwargs: Any) -> AgentChatResponse:
        """Let the model choose a tool and call it; as in LlamaIndex, and an invalid call is an error.

        Raises:
            ValueError: the model made no call, or one that cannot be executed.
        """
        return super().predict_and_call(*args, **{"error_on_invalid_tool_call": True, **kwargs})

    async def apredict_and_call(self, *args: Any, **kwargs: Any) -> AgentChatResponse:
        """Do what `predict_and_call` does without blocking the event loop."""
        return await super().apredict_and_call(*args, **{"error_on_invalid_tool_call": True, **kwargs})


class MiniCPMLLM(EngineLLM, CustomLLM):
    """The same model for code that expects a CustomLLM; its arguments are those of `MiniCPM`."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "MiniCPMLLM"
