"""Questions over an index: a query engine and a chat engine that answer from the passages only, with citations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_index.core import Settings
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import BaseMemory
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle

from llamaindex_minicpm.index import Searchable, open_retriever
from llamaindex_minicpm.llms import MiniCPM
from llamaindex_minicpm.prompts import Prompt
from llamaindex_minicpm.rag_steps import RagSteps, empty_metadata, takes_grammar
from minicpm_core.rag import RagSettings, refuse_local_settings


def create_query_engine(
    index: Searchable,
    llm: LLM | str | Path | None = None,
    *,
    settings: RagSettings | None = None,
    streaming: bool = False,
) -> MiniCPMQueryEngine:
    """Return a query engine that answers questions from the passages of an index, or says that they do not tell.

    The response's `source_nodes` are the passages as they were numbered for the model, or those that were found where
    it was not asked; `metadata["citations"]` are those that the answer names: dicts of n, source, page and quote.
    `metadata["support"]` tells for each sentence what it rests on, `metadata["dropped"]` which passages the context
    window had no room for: dicts of id, source and page. A MiniCPM model writes under a grammar: `[n]` can only be the
    number of a passage that it was given. Pages that are stored as pictures are shown to it as pictures.

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
    if not takes_grammar(llm):
        refuse_local_settings(steps.settings, f"this {type(llm).__name__}", "a local MiniCPM")
    return steps


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
            prompt = self.steps.find(query_bundle.query_str, query_bundle)
            nodes, metadata = list(prompt.nodes), empty_metadata(prompt)
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
            prompt = await self.steps.afind(query_bundle.query_str, query_bundle)
            nodes, metadata = list(prompt.nodes), empty_metadata(prompt)
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
