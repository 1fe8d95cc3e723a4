"""A conversation over an index: every answer comes from its passages, and follow-up questions are understood."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
)
from llama_index.core.callbacks import trace_method
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.memory import BaseMemory, ChatMemoryBuffer
from llama_index.core.tools import ToolOutput

from llamaindex_minicpm.prompts import Prompt
from llamaindex_minicpm.rag_steps import RagSteps, empty_metadata


@dataclass
class CitedChatResponse(StreamingAgentChatResponse):
    """A streamed answer; `metadata["citations"]` is there when the stream has ended."""

    metadata: dict[str, Any] = field(default_factory=dict)


class MiniCPMChatEngine(BaseChatEngine):
    """Answers from the passages of an index in a conversation; made by `create_chat_engine`.

    The model is shown the passages and the question, as the query engine does it, and not the conversation: that
    serves to make a follow-up question searchable.
    """

    def __init__(self, steps: RagSteps, memory: BaseMemory | None = None) -> None:
        self.steps = steps
        self.memory: BaseMemory = memory or ChatMemoryBuffer.from_defaults()
        self.callback_manager = steps.llm.callback_manager

    @property
    def chat_history(self) -> list[ChatMessage]:
        """The conversation so far."""
        return self.memory.get_all()

    def reset(self) -> None:
        """Forget the conversation."""
        self.memory.reset()

    @trace_method("chat")
    def chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        """Answer a question.

        Args:
            message: the question.
            chat_history: what to take for the conversation so far, instead of the engine's memory.
        """
        prompt, query = self._find(message, chat_history)
        answer = self.steps.answer(prompt)
        for turn in _turns(message, answer):
            self.memory.put(turn)
        return self._respond(answer, prompt, query)

    @trace_method("chat")
    def stream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> CitedChatResponse:
        """Answer a question in pieces: `response_gen`; leaving it stops the model."""
        prompt, query = self._find(message, chat_history)
        response = self._open(prompt, query)

        def run() -> ChatResponseGen:
            answer = ""
            with closing(self.steps.stream(prompt, lambda whole: self._finish(response, whole, prompt))) as deltas:
                for delta in deltas:
                    answer += delta
                    yield ChatResponse(message=_assistant(answer), delta=delta)
            for turn in _turns(message, answer):
                self.memory.put(turn)

        response.chat_stream = run()
        return response

    @trace_method("chat")
    async def achat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        """Do what `chat` does without blocking the event loop."""
        prompt, query = await self._afind(message, chat_history)
        answer = await self.steps.aanswer(prompt)
        for turn in _turns(message, answer):
            await self.memory.aput(turn)
        return self._respond(answer, prompt, query)

    @trace_method("chat")
    async def astream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> CitedChatResponse:
        """Do what `stream_chat` does without blocking the event loop: `async_response_gen()`."""
        prompt, query = await self._afind(message, chat_history)
        response = self._open(prompt, query)

        async def run() -> ChatResponseAsyncGen:
            answer = ""
            stream = self.steps.astream(prompt, lambda whole: self._finish(response, whole, prompt))
            async with aclosing(stream) as deltas:
                async for delta in deltas:
                    answer += delta
                    yield ChatResponse(message=_assistant(answer), delta=delta)
            for turn in _turns(message, answer):
                await self.memory.aput(turn)

        response.achat_stream = run()
        return response

    def _find(self, message: str, chat_history: list[ChatMessage] | None) -> tuple[Prompt, str]:
        if chat_history is not None:
            self.memory.set(chat_history)
        condense = self.steps.condense(message, self.memory.get(input=message))
        query = condense.query
        if condense.messages:
            said = self.steps.llm.chat(list(condense.messages), **condense.options)
            query = condense.settle(said.message.content or "")
        return self.steps.find(self.steps.asked(message, query), query), query

    async def _afind(self, message: str, chat_history: list[ChatMessage] | None) -> tuple[Prompt, str]:
        if chat_history is not None:
            await self.memory.aset(chat_history)
        history = await self.memory.aget(input=message)
        condense = await asyncio.to_thread(self.steps.condense, message, history)
        query = condense.query
        if condense.messages:
            said = await self.steps.llm.achat(list(condense.messages), **condense.options)
            query = condense.settle(said.message.content or "")
        return await self.steps.afind(self.steps.asked(message, query), query), query

    def _respond(self, answer: str, prompt: Prompt, query: str) -> AgentChatResponse:
        return AgentChatResponse(
            response=answer,
            sources=[_source(prompt, query)],
            source_nodes=list(prompt.nodes),
            metadata=self.steps.check(answer, prompt),
        )

    def _open(self, prompt: Prompt, query: str) -> CitedChatResponse:
        """Return a response that is streamed by its reader, not by a thread that nobody can stop."""
        return CitedChatResponse(
            sources=[_source(prompt, query)],
            source_nodes=list(prompt.nodes),
            is_writing_to_memory=False,
            metadata=empty_metadata(prompt),
        )

    def _finish(self, response: CitedChatResponse, answer: str, prompt: Prompt) -> None:
        response.metadata.update(self.steps.check(answer, prompt))
        response.is_done = True


def _source(prompt: Prompt, query: str) -> ToolOutput:
    content = "\n\n".join(node.get_content() for node in prompt.nodes)
    return ToolOutput(
        tool_name="retriever", content=content, raw_input={"message": query}, raw_output=list(prompt.nodes)
    )


def _assistant(answer: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=answer)


def _turns(message: str, answer: str) -> Sequence[ChatMessage]:
    return ChatMessage(role=MessageRole.USER, content=message), _assistant(answer)
