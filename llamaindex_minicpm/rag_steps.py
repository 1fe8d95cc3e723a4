"""The steps from a question to a cited answer, which query engine and chat engine share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import LLM
from llama_index.core.schema import NodeWithScore, QueryType

from llamaindex_minicpm.engine_llm import EngineLLM
from llamaindex_minicpm.index import to_passage
from llamaindex_minicpm.prompts import Condense, Prompt, estimate_tokens, to_chat
from minicpm_core.answer_grammar import answer_grammar
from minicpm_core.answerability import is_unanswered
from minicpm_core.follow_up import condense_messages, condense_options, search_query, settle_question
from minicpm_core.page_prompt import EngineSeat, show_pages
from minicpm_core.rag import (
    Passage,
    RagSettings,
    RefusalLanguage,
    build_messages,
    describe_dropped,
    detect_language,
    fit_passages,
    is_out_of_scope,
    is_refusal,
    prompt_room,
)
from minicpm_core.support import find_sources, find_support


@dataclass(frozen=True)
class RagSteps:
    """The steps from a question to a cited answer; query and chat engine go through the same."""

    llm: LLM
    retriever: BaseRetriever
    settings: RagSettings

    @cached_property
    def seat(self) -> EngineSeat | None:
        """Where the engine of a MiniCPM model is loaded, and makes room for the embedders of pages."""
        if not isinstance(self.llm, EngineLLM):
            return None
        index = getattr(self.retriever, "documents", None)
        own = self.llm.engine is None
        return EngineSeat(self.llm.load_engine, index, self.llm.memory_limit, own=own)

    def _before_search(self) -> None:
        if self.seat:
            self.seat.before_search()

    def _show(self, passages: Sequence[Passage]) -> Mapping[int, Mapping[str, Any]]:
        if not any(passage.thumbnail for passage in passages):
            return {}
        sees = self.seat is None or self.seat.open().family.vision is not None
        return show_pages(passages, sees=sees, name=str(getattr(self.llm, "model", type(self.llm).__name__)))

    def find(self, question: str, query: QueryType | None = None) -> Prompt:
        """Search with `query` (None: the question) and return what to ask."""
        self._before_search()
        return self._prompt(question, self.retriever.retrieve(query or question))

    async def afind(self, question: str, query: QueryType | None = None) -> Prompt:
        """Do the same without blocking the event loop."""
        await asyncio.to_thread(self._before_search)
        nodes = await self.retriever.aretrieve(query or question)
        return await asyncio.to_thread(self._prompt, question, nodes)

    def _prompt(self, question: str, nodes: Sequence[NodeWithScore]) -> Prompt:
        passages = [to_passage(node) for node in nodes]
        if is_out_of_scope(passages, self.settings):
            return Prompt(question, tuple(nodes), refusal=self.settings.refusals[detect_language(question)])
        room, count_tokens = self._room(), self._counter()
        kept = fit_passages(question, passages, self.settings, room=room, count_tokens=count_tokens, show=self._show)
        texts = [passage.text for passage in kept]
        shown = self._show(kept)
        messages = build_messages(question, texts, **self.settings.prompts, pictures=shown)
        dropped = tuple(describe_dropped(passages, len(kept)))
        shown_nodes = tuple(nodes[: len(kept)])
        if self.seat and is_unanswered(self.seat.open, question, messages, self.settings):
            refusal = self.settings.refusals[detect_language(question)]
            return Prompt(question, shown_nodes, refusal=refusal, dropped=dropped)
        options = {"grammar": answer_grammar(question, texts, self.settings)} if takes_grammar(self.llm) else {}
        return Prompt(question, shown_nodes, to_chat(messages), options=options, dropped=dropped)

    def condense(self, question: str, history: Sequence[ChatMessage]) -> Condense:
        """Return how the model is asked to make a question stand alone, or the text to search with where it is not."""
        roles = (MessageRole.USER, MessageRole.ASSISTANT)
        turns = [{"role": m.role.value, "content": m.content or ""} for m in history if m.role in roles]
        if not turns:
            return Condense(question)
        if self.settings.follow_up == "history":
            return Condense(search_query(question, turns))
        messages = condense_messages(question, turns, self.settings, room=self._room(), count_tokens=self._counter())
        grammar = takes_grammar(self.llm)
        options = condense_options(self.seat.open(), grammar=grammar) if self.seat else {}
        settle = partial(settle_question, question=question, history=turns, settings=self.settings)
        return Condense(question, to_chat(messages), options, settle)

    def asked(self, question: str, query: str) -> str:
        """Return the question as the model is asked it: the rewritten one stands alone, the searched one may not."""
        return query if self.settings.follow_up == "model" else question

    def stream(self, prompt: Prompt, finish: Callable[[str], None]) -> Generator[str, None, None]:
        """Yield the answer's pieces, then give the whole to `finish`; leaving early stops the model."""
        answer = ""
        if prompt.refusal is not None:
            answer = prompt.refusal
            yield answer
        else:
            wording = RefusalLanguage(prompt.question, self.settings)
            with closing(self.llm.stream_chat(list(prompt.messages), **prompt.options)) as responses:
                for response in responses:
                    if shown := wording.push(response.delta or ""):
                        answer += shown
                        yield shown
            if shown := wording.flush():
                answer += shown
                yield shown
        finish(answer)

    async def astream(self, prompt: Prompt, finish: Callable[[str], None]) -> AsyncGenerator[str, None]:
        """Do the same without blocking the event loop."""
        answer = ""
        if prompt.refusal is not None:
            answer = prompt.refusal
            yield answer
        else:
            wording = RefusalLanguage(prompt.question, self.settings)
            async with aclosing(await self.llm.astream_chat(list(prompt.messages), **prompt.options)) as responses:
                async for response in responses:
                    if shown := wording.push(response.delta or ""):
                        answer += shown
                        yield shown
            if shown := wording.flush():
                answer += shown
                yield shown
        finish(answer)

    def answer(self, prompt: Prompt) -> str:
        """Return the whole answer."""
        if prompt.refusal is not None:
            return prompt.refusal
        said = self.llm.chat(list(prompt.messages), **prompt.options)
        return self._worded(prompt, said.message.content or "")

    async def aanswer(self, prompt: Prompt) -> str:
        """Do the same without blocking the event loop."""
        if prompt.refusal is not None:
            return prompt.refusal
        said = await self.llm.achat(list(prompt.messages), **prompt.options)
        return self._worded(prompt, said.message.content or "")

    def _worded(self, prompt: Prompt, answer: str) -> str:
        wording = RefusalLanguage(prompt.question, self.settings)
        return wording.push(answer) + wording.flush()

    def check(self, answer: str, prompt: Prompt) -> dict[str, Any]:
        """Return the passages that the answer names, what its sentences rest on, and the passages without room."""
        known = empty_metadata(prompt)
        if is_refusal(answer, self.settings):
            return known
        passages = [to_passage(node) for node in prompt.nodes]
        citations = find_sources(prompt.question, answer, passages)
        return known | {
            "citations": [asdict(citation) for citation in citations],
            "support": [asdict(sentence) for sentence in find_support(answer, passages)],
        }

    def _room(self) -> int:
        if self.seat and isinstance(self.llm, EngineLLM):
            return prompt_room(self.seat.open().context_window, self.llm.max_tokens)
        metadata = self.llm.metadata
        return prompt_room(metadata.context_window, metadata.num_output)

    def _counter(self) -> Callable[[list[dict[str, Any]]], int]:
        if self.seat:
            return self.seat.open().count_tokens
        return estimate_tokens


def takes_grammar(llm: LLM) -> bool:
    """Tell whether the model's answers can be made to follow a grammar."""
    return isinstance(llm, EngineLLM) and llm.takes_grammar


def empty_metadata(prompt: Prompt) -> dict[str, Any]:
    """Return the metadata of a response whose answer is not known yet."""
    return {"citations": [], "support": [], "dropped": list(prompt.dropped)}
