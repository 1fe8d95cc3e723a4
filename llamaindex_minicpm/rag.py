"""Questions over an index: a query engine and a chat engine that answer from the passages only, with citations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_index.core import Settings
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import BaseMemory
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle

from llamaindex_minicpm.engine_llm import EngineLLM
from llamaindex_minicpm.index import Searchable, open_retriever, to_passage
from llamaindex_minicpm.llms import MiniCPM
from llamaindex_minicpm.prompts import Prompt, estimate_tokens, to_chat
from minicpm_core.answer_grammar import answer_grammar
from minicpm_core.citations import find_citations
from minicpm_core.page_prompt import EngineSeat, show_pages
from minicpm_core.rag import (
    Passage,
    RagSettings,
    RefusalLanguage,
    build_messages,
    condense_messages,
    detect_language,
    fit_passages,
    is_out_of_scope,
    is_refusal,
    prompt_room,
    search_query,
)
from minicpm_core.support import find_support


def create_query_engine(
    index: Searchable,
    llm: LLM | str | Path | None = None,
    *,
    settings: RagSettings | None = None,
    streaming: bool = False,
) -> MiniCPMQueryEngine:
    """Return a query engine that answers questions from the passages of an index, or says that they do not tell.

    The response's `source_nodes` are the passages as they were numbered for the model (none where it was not asked),
    and `metadata["citations"]` those that the answer names: dicts of n, source, page and quote. `metadata["support"]`
    tells for each sentence what it rests on. A MiniCPM model writes under a grammar: `[n]` can only be the number of a
    passage that it was given. Pages that are stored as pictures are shown to it as pictures.

    Args:
        index: the folder of an index, what `load_index` returns, or another LlamaIndex index or retriever.
        llm: any LlamaIndex model, or the name of one for `MiniCPM`; None takes `Settings.llm` if it was set.
        settings: None takes those of the index.
        streaming: responses stream; their citations are there when the stream has ended.
    """
    return MiniCPMQueryEngine(_create_steps(index, llm, settings), streaming=streaming)


def create_chat_engine(
    index: Searchable,
    llm: LLM | str | Path | None = None,
    *,
    settings: RagSettings | None = None,
    memory: BaseMemory | None = None,
) -> BaseChatEngine:
    """Return a chat engine that does the same in a conversation, and understands questions that follow others.

    Args:
        index: see `create_query_engine`.
        llm: see `create_query_engine`.
        settings: None takes those of the index; `follow_up` says how a follow-up question is made searchable.
        memory: where the conversation is kept; None makes a new one.
    """
    from llamaindex_minicpm.chat_engine import MiniCPMChatEngine

    return MiniCPMChatEngine(_create_steps(index, llm, settings), memory)


def _create_steps(index: Searchable, llm: LLM | str | Path | None, settings: RagSettings | None) -> RagSteps:
    if llm is None:  # Settings.llm would ask for an OpenAI key where nothing was set
        llm = Settings.llm if Settings._llm is not None else MiniCPM()
    elif isinstance(llm, str | Path):
        llm = MiniCPM(model=str(llm))
    elif not isinstance(llm, LLM):
        raise TypeError(f"llm is a {type(llm).__name__}; accepted: a LlamaIndex LLM, or the name of a model")
    steps = RagSteps(llm, *open_retriever(index, settings))
    if steps.settings.quote_only and not _takes_grammar(llm):
        kind = type(llm).__name__
        raise ValueError(f"quote_only decodes under a grammar, which this {kind} cannot; use a local MiniCPM")
    return steps


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

    def find(self, question: str, query: str | None = None) -> Prompt:
        """Search with `query` (None: the question) and return what to ask."""
        self._before_search()
        return self._prompt(question, self.retriever.retrieve(query or question))

    async def afind(self, question: str, query: str | None = None) -> Prompt:
        """Do the same without blocking the event loop."""
        await asyncio.to_thread(self._before_search)
        nodes = await self.retriever.aretrieve(query or question)
        return await asyncio.to_thread(self._prompt, question, nodes)

    def _prompt(self, question: str, nodes: Sequence[NodeWithScore]) -> Prompt:
        passages = [to_passage(node) for node in nodes]
        if is_out_of_scope(passages, self.settings):
            return Prompt(question, refusal=self.settings.refusals[detect_language(question)])
        room, count_tokens = self._room(), self._counter()
        kept = fit_passages(question, passages, self.settings, room=room, count_tokens=count_tokens, show=self._show)
        texts = [passage.text for passage in kept]
        shown = self._show(kept)
        messages = build_messages(question, texts, system_prompts=self.settings.system_prompts, pictures=shown)
        options = {"grammar": answer_grammar(question, texts, self.settings)} if _takes_grammar(self.llm) else {}
        return Prompt(question, tuple(nodes[: len(kept)]), to_chat(messages), options=options)

    def condense(self, question: str, history: Sequence[ChatMessage]) -> tuple[str, tuple[ChatMessage, ...]]:
        """Return the text to search with, and the messages that ask the model for a better one (none: not needed)."""
        roles = (MessageRole.USER, MessageRole.ASSISTANT)
        turns = [{"role": m.role.value, "content": m.content or ""} for m in history if m.role in roles]
        if not turns:
            return question, ()
        if self.settings.follow_up == "history":
            return search_query(question, turns), ()
        room, count_tokens = self._room(), self._counter()
        messages = condense_messages(question, turns, self.settings)
        while len(turns) > 1 and count_tokens(messages) > room:
            del turns[0]
            messages = condense_messages(question, turns, self.settings)
        return question, to_chat(messages)

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
        """Return the passages that the answer names, and what each of its sentences rests on."""
        if is_refusal(answer, self.settings):
            return empty_metadata()
        passages = [to_passage(node) for node in prompt.nodes]
        citations = find_citations(prompt.question, answer, passages)
        return {
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


def _takes_grammar(llm: LLM) -> bool:
    return isinstance(llm, EngineLLM) and llm.takes_grammar


class MiniCPMQueryEngine(BaseQueryEngine):
    """Answers questions from the passages of an index; made by `create_query_engine`."""

    def __init__(self, steps: RagSteps, *, streaming: bool = False) -> None:
        self.steps = steps
        self.streaming = streaming
        super().__init__(callback_manager=steps.llm.callback_manager)

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Return the passages that are found for a question."""
        return self.steps.retriever.retrieve(query_bundle)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}

    def _query(self, query_bundle: QueryBundle) -> Response | StreamingResponse:
        with self._event(query_bundle) as event:
            prompt = self.steps.find(query_bundle.query_str)
            nodes, metadata = list(prompt.nodes), empty_metadata()
            response: Response | StreamingResponse
            if self.streaming:
                stream = self.steps.stream(prompt, self._citing(prompt, metadata))
                response = StreamingResponse(stream, nodes, metadata)
            else:
                response = self._respond(self.steps.answer(prompt), prompt)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> Response | AsyncStreamingResponse:
        with self._event(query_bundle) as event:
            prompt = await self.steps.afind(query_bundle.query_str)
            nodes, metadata = list(prompt.nodes), empty_metadata()
            response: Response | AsyncStreamingResponse
            if self.streaming:
                stream = self.steps.astream(prompt, self._citing(prompt, metadata))
                response = AsyncStreamingResponse(stream, nodes, metadata)
            else:
                response = self._respond(await self.steps.aanswer(prompt), prompt)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _event(self, query_bundle: QueryBundle) -> Any:
        return self.callback_manager.event(CBEventType.QUERY, payload={EventPayload.QUERY_STR: query_bundle.query_str})

    def _respond(self, answer: str, prompt: Prompt) -> Response:
        return Response(answer, list(prompt.nodes), self.steps.check(answer, prompt))

    def _citing(self, prompt: Prompt, metadata: dict[str, Any]) -> Callable[[str], None]:
        return lambda answer: metadata.update(self.steps.check(answer, prompt))


def empty_metadata() -> dict[str, Any]:
    """Return the metadata of a response whose answer is not known yet."""
    return {"citations": [], "support": []}
