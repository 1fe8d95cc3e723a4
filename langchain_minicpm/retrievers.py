"""The index as a LangChain retriever and as a tool for agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.vectorstores import VectorStore
from pydantic import BaseModel, ConfigDict, Field, field_validator

from minicpm_core.index import Index
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
    own = getattr(index, "index", index)
    if isinstance(own, Index):
        return own
    if isinstance(index, VectorStore):
        return index
    raise TypeError(
        f"index is a {type(index).__name__}; accepted: the folder of an index, what load_index returns, "
        "or another LangChain vector store"
    )


def search_passages(index: Searchable, query: str, k: int | None = None) -> list[Passage]:
    """Return the `k` best passages (None: as many as the settings say), best first."""
    if isinstance(index, Index):
        return index.search(query, k)
    return [to_passage(document) for document in index.similarity_search(query, k=k or RagSettings.k)]


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

    Args:
        index: the folder of an index, what `load_index` returns, or another vector store (searched by meaning only).
        k: documents to return, exactly; None takes the index's settings. `invoke(question, k=...)` changes it.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    index: Any
    k: int | None = Field(default=None, ge=1)

    @field_validator("index", mode="after")
    @classmethod
    def _open(cls, index: Any) -> Searchable:
        try:
            return open_searchable(index)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [to_document(passage) for passage in search_passages(self.index, query, k or self.k)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return await run_in_executor(None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), k=k)


class SearchInput(BaseModel):
    """What the tool is asked."""

    query: str = Field(description="A question or words to look for in the documents.")


def create_retriever_tool(
    index: Searchable | str | Path,
    *,
    name: str = "search_documents",
    description: str = "Search the user's documents. Returns numbered passages with the files they come from.",
    k: int | None = None,
) -> BaseTool:
    """Return a tool that searches the index: its content is numbered passages, its artifact the documents.

    Args:
        index: the folder of an index, what `load_index` returns, or another vector store.
        name: what the model calls the tool by.
        description: what the model is told about it.
        k: passages to return; None takes the index's settings.
    """
    retriever = MiniCPMRetriever(index=index, k=k)

    def search(query: str) -> tuple[str, list[Document]]:
        documents = retriever.invoke(query)
        return number_passages(documents) or "Nothing was found.", documents

    return StructuredTool.from_function(
        search, name=name, description=description, args_schema=SearchInput, response_format="content_and_artifact"
    )


def number_passages(documents: list[Document]) -> str:
    """Return the documents as text for a model: "[1] (file, page 2) passage"."""
    return "\n\n".join(
        f"[{n}] ({_place(document)}) {' '.join(document.page_content.split())}"
        for n, document in enumerate(documents, start=1)
    )


def _place(document: Document) -> str:
    source, page = document.metadata.get("source", "unknown"), document.metadata.get("page")
    return f"{source}, page {page}" if page is not None else str(source)
