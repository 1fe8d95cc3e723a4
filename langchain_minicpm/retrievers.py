"""The index as a LangChain retriever and as a tool for agents."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.vectorstores import VectorStore
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from minicpm_core.index import Index
from minicpm_core.index.listing import (
    EMPTY_QUERY,
    NOTHING_FOUND,
    QUERY_DESCRIPTION,
    TOOL_DESCRIPTION,
    TOOL_NAME,
    number_passages,
)
from minicpm_core.index.reranking import RERANKED, Reranker, rerank, resolve_reranker
from minicpm_core.rag import Passage, RagSettings

Searchable: TypeAlias = Index | VectorStore
"""An index of ours, searched by meaning and by words, or any other vector store, searched by meaning."""


def open_searchable(index: Searchable | str | Path) -> Searchable:
    """Return what is searched: the core index of a folder or of our Chroma, or the vector store itself.

    Raises:
        TypeError: `index` is none of these.
    """
    if isinstance(index, str | Path):
        return Index.open(index)
    own = getattr(index, "index", None) if isinstance(index, VectorStore) else index
    if isinstance(own, Index):
        return own
    if isinstance(index, VectorStore):
        return index
    raise TypeError(
        f"index is a {type(index).__name__}; accepted: the folder of an index, what load_index returns, "
        "or another LangChain vector store"
    )


def search_passages(index: Searchable, query: str, k: int | None = None, **options: Any) -> list[Passage]:
    """Return the `k` best passages (None: as many as the settings say), best first.

    Args:
        index: what is searched.
        query: the question.
        k: passages wanted.
        **options: `where`, `reranker` and `budget` of `Index.search`; another vector store takes `where` as its own
            `filter`, and has no neighbours to join.
    """
    if isinstance(index, Index):
        return index.search(query, k, **options)
    if options.get("budget") is not None:
        raise ValueError(
            f"budget joins neighbours of our own index only; {type(index).__name__} has none, leave it out"
        )
    wanted = RagSettings.k if k is None else k
    if wanted < 1:
        raise ValueError(f"k is {wanted}; at least one passage must be asked for")
    filters = {} if options.get("where") is None else {"filter": options["where"]}
    reranker = options.get("reranker")
    found = index.similarity_search(query, k=wanted if reranker is None else max(wanted, RERANKED), **filters)
    passages = [to_passage(document) for document in found]
    return passages if reranker is None else rerank(query, passages, reranker)[:wanted]


def to_document(passage: Passage) -> Document:
    """Return a passage as a LangChain document; how it was found is in the metadata."""
    found = {name: getattr(passage, name) for name in ("source", "page", "score", "similarity", "coverage")}
    return Document(id=passage.id, page_content=passage.text, metadata={**passage.metadata, **found})


def to_passage(document: Document) -> Passage:
    """Return a document as a passage; one of another vector store counts as found by all words of the question."""
    known = document.metadata
    return Passage(
        id=document.id or "",
        text=document.page_content,
        source=str(known.get("source", "")),
        page=known.get("page"),
        score=known.get("score", 0.0),
        similarity=known.get("similarity"),
        coverage=known.get("coverage", 1.0),
        metadata=known,
    )


class MiniCPMRetriever(BaseRetriever):
    """Searches an index by meaning and by words at once.

    Every argument but `index` and `reranker` can be changed for one call: `invoke(question, k=2, where={"page": 1})`.

    Args:
        index: the folder of an index, what `load_index` returns, or another vector store (searched by meaning only).
        k: documents to return, exactly; None takes the index's settings.
        where: condition on the documents' metadata, such as {"source": "lease.pdf"} or {"page": {"$gte": 2}}.
        reranker: orders the best candidates anew: `MiniCPMReranker`, a cross-encoder, or a loaded chat model
            (`ChatMiniCPM` or an engine), which then says yes or no to each.
        budget: tokens that the documents may have together; while it allows, each has its neighbours joined.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    index: Any
    k: int | None = Field(default=None, ge=1)
    where: dict[str, Any] | None = None
    reranker: Any = None
    budget: int | None = Field(default=None, ge=0)
    _ready: Reranker | None = PrivateAttr(default=None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @field_validator("index", mode="after")
    @classmethod
    def _open(cls, index: Any) -> Searchable:
        try:
            return open_searchable(index)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def load_reranker(self) -> Reranker | None:
        """Return what reranks, loaded; None where nothing does."""
        with self._lock:
            if self._ready is None and self.reranker is not None:
                self._ready = resolve_reranker(self.reranker)
            return self._ready

    def search(
        self, query: str, *, k: int | None = None, where: dict[str, Any] | None = None, budget: int | None = None
    ) -> list[Passage]:
        """Return the best passages, best first; None takes the retriever's own value, and `where={}` is none."""
        return search_passages(
            self.index,
            query,
            self.k if k is None else k,
            where=(self.where if where is None else where) or None,
            reranker=self.load_reranker(),
            budget=self.budget if budget is None else budget,
        )

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: dict[str, Any] | None = None,
        budget: int | None = None,
    ) -> list[Document]:
        return [to_document(passage) for passage in self.search(query, k=k, where=where, budget=budget)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        manager = run_manager.get_sync()
        return await run_in_executor(None, self._get_relevant_documents, query, run_manager=manager, **options)


class SearchInput(BaseModel):
    """What the tool is asked."""

    query: str = Field(description=QUERY_DESCRIPTION)


def create_retriever_tool(
    index: Searchable | str | Path | MiniCPMRetriever,
    *,
    name: str = TOOL_NAME,
    description: str = TOOL_DESCRIPTION,
    k: int | None = None,
) -> BaseTool:
    """Return a tool that searches the index: its content is numbered passages, its artifact the documents.

    Args:
        index: the folder of an index, what `load_index` returns, another vector store, or a `MiniCPMRetriever`.
        name: what the model calls the tool by.
        description: what the model is told about it.
        k: passages to return; None takes the retriever's or the index's settings.
    """
    retriever = index if isinstance(index, MiniCPMRetriever) else MiniCPMRetriever(index=index)
    options: dict[str, Any] = {} if k is None else {"k": k}

    def search(query: str) -> tuple[str, list[Document]]:
        if not query.strip():  # what a small model writes must not end the agent
            return EMPTY_QUERY, []
        documents = retriever.invoke(query, **options)
        return number_passages([to_passage(document) for document in documents]) or NOTHING_FOUND, documents

    return StructuredTool.from_function(
        search, name=name, description=description, args_schema=SearchInput, response_format="content_and_artifact"
    )
