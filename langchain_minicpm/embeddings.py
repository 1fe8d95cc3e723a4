"""Embeddings: sentence-transformers models on the CPU, by the name that an index records."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict

from minicpm_core.index import DEFAULT_EMBEDDINGS, Embedder, resolve_embedder


class MiniCPMEmbeddings(BaseModel, Embeddings):
    """The embeddings that an index uses, as LangChain embeddings; the model is loaded at the first text.

    Args:
        model: a sentence-transformers folder or hub id, or "demo" (small, English, installs with the `demo` extra).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = DEFAULT_EMBEDDINGS

    @property
    def embedder(self) -> Embedder:
        """The embedding model itself; one for all that name it."""
        return resolve_embedder(self.model)[1]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of passages, `[len(texts)][dimension]`."""
        return self.embedder.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, [dimension]."""
        return self.embedder.embed_query(text)


class IndexEmbeddings(Embeddings):
    """The embedder of an index as LangChain embeddings."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of passages, `[len(texts)][dimension]`."""
        return self.embedder.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, [dimension]."""
        return self.embedder.embed_query(text)
