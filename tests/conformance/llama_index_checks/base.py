"""What the checks share: the class under test, its gates, and how it is asked."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms.llm import LLM


class Conformance:
    """A LlamaIndex LLM class, how to construct it, and what it can do.

    A gate that is False skips the checks behind it. A subclass sets attributes (or properties of the same names):

    * llm_class, llm_params: the class, and the arguments for short greedy answers.
    * has_tool_calling: chat_with_tools and its relatives; has_tool_choice: `tool_required` and `tool_choice` are kept.
    * has_structured_output: the structured_predict family and as_structured_llm.
    * has_exact_stop: `stop=[...]` cuts the answer in front of the text.
    * has_token_usage: `raw["usage"]` counts prompt_tokens, completion_tokens and total_tokens.
    * has_system_prompt: the constructor's `system_prompt` is part of what the model is asked.
    * has_logprobs: `logprobs=True, top_logprobs=2`. has_thinking: answers begin with a ThinkingBlock.
    * supports_images: ImageBlock; without it a picture must be refused.
    * supports_pickle: llm objects can be pickled and copied.
    * refuses_long_prompts: what is longer than the context window is an error.
    * is_deterministic: llm_params make equal questions give equal answers.
    * is_trained: the model understands English requests, so that values can be expected.
    """

    llm_class: Any = None
    llm_params: dict[str, Any] = {}  # noqa: RUF012
    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True
    has_exact_stop = True
    has_token_usage = True
    has_system_prompt = True
    has_logprobs = False
    has_thinking = False
    supports_images = False
    supports_pickle = True
    refuses_long_prompts = True
    is_deterministic = True
    is_trained = False

    secret_params: dict[str, Any] = {}  # noqa: RUF012  constructor arguments that must not be serialised
    caller_params: dict[str, Any] = {}  # noqa: RUF012  further arguments where answers are calls or objects: more tokens
    long_options: dict[str, Any] = {"max_tokens": 150}  # noqa: RUF012  arguments of a call whose answer is long
    thinking_options: dict[str, Any] = {}  # noqa: RUF012  arguments of a call that thinks
    question = "Hello, who are you?"

    def create(self, **overrides: Any) -> Any:
        """Return a new LLM."""
        return self.llm_class(**{**self.llm_params, **overrides})

    def create_caller(self, **overrides: Any) -> Any:
        """Return a new LLM for answers that are calls or objects."""
        return self.create(**{**self.caller_params, **overrides})

    def count_work(self, llm: Any) -> AbstractContextManager[list[Any]] | None:
        """Return a context in which a list grows with each step of the model; None where that cannot be seen."""
        return None

    def create_react_llm(self, tools: list[Any]) -> Any:
        """Return an LLM that keeps to the ReAct format with these tools; None where there is none."""
        return None

    def need(self, *gates: str) -> None:
        """Skip the running check unless the gates are open."""
        for gate in gates:
            if not getattr(self, gate):
                pytest.skip(f"{gate} is False")

    def ask(self, text: str | None = None) -> list[ChatMessage]:
        """Return the messages of one question."""
        return [ChatMessage(role="user", content=text or self.question)]


def text_of(response: Any) -> str:
    """Return the text of a chat or completion response."""
    if isinstance(response, CompletionResponse):
        return response.text
    assert isinstance(response, ChatResponse), f"{type(response).__name__} is no response"
    return response.message.content or ""


def dump(messages: list[ChatMessage]) -> str:
    """Return messages as text that shows every change."""
    return json.dumps([message.model_dump(mode="json") for message in messages], sort_keys=True)


def check_stream(responses: list[Any]) -> str:
    """Check that each response holds the text so far and `delta` the last piece of it; return the whole."""
    assert responses, "the stream was empty"
    so_far = ""
    for response in responses:
        assert isinstance(response.delta, str), f"delta is {response.delta!r}, not a string"
        so_far += response.delta
        assert text_of(response) == so_far, "the text so far is not the sum of the deltas"
    return so_far


async def gather(stream: Any) -> list[Any]:
    """Return what an awaitable of an asynchronous generator yields."""
    return [item async for item in await stream]


def check_is_llm(llm: Any) -> None:
    """Check that an object is a LlamaIndex LLM."""
    assert isinstance(llm, LLM), f"{type(llm).__name__} is no LLM of LlamaIndex"
