"""Embeddings for LlamaIndex from the same models that the index uses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator

if TYPE_CHECKING:
    from minicpm_core.index import Embedder

DEFAULT_EMBEDDINGS = "intfloat/multilingual-e5-small"
"""As in `minicpm_core.index`, which is not imported before it is needed."""


class MiniCPMEmbedding(BaseEmbedding):
    """A local embedding model; it loads at the first text.

    Args:
        model: a sentence-transformers folder or hub id, or "demo" for the small model that the demo extra installs.
        embedder: a ready object with `embed_documents` and `embed_query` to use instead of loading one.
        **LlamaIndex's own: embed_batch_size, callback_manager and so on.
    """

    model: str = Field(default=DEFAULT_EMBEDDINGS, description='Folder, hub id, or "demo".')
    embedder: Any = Field(default=None, description="A ready embedder to use instead.", exclude=True, repr=False)

    _embedder: Any = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        if isinstance(values, cls):  # a field of another model holds a ready one
            return values
        if unknown := [name for name in values if name not in cls.model_fields]:
            accepted = ", ".join(sorted(cls.model_fields))
            raise ValueError(f"unknown arguments: {', '.join(unknown)}; accepted: {accepted}")
        name = values.get("model", values.get("model_name", DEFAULT_EMBEDDINGS))
        name = str(name) if isinstance(name, Path) else name
        return {**values, "model": name, "model_name": name}

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "MiniCPMEmbedding"

    def load_embedder(self) -> Embedder:
        """Return the model, loading it the first time."""
        if self._embedder is None:
            from minicpm_core.index import resolve_embedder

            self._embedder = self.embedder or resolve_embedder(self.model)[1]
        embedder: Embedder = self._embedder
        return embedder

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.load_embedder().embed_query(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self.load_embedder().embed_documents(list(texts))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class LlamaIndexEmbedder:
    """A LlamaIndex embedding model in the form that the index takes; `name` is what the index records."""

    def __init__(self, embedding: BaseEmbedding) -> None:
        self.embedding = embedding
        self.name = f"{type(embedding).__name__}:{embedding.model_name}"

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text."""
        return self.embedding.get_text_embedding_batch(list(texts))

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        return self.embedding.get_query_embedding(text)


def to_embedder(embeddings: str | Path | Embedder | BaseEmbedding | None) -> str | Path | Embedder | None:
    """Return what `minicpm_core.index` takes for embeddings."""
    if isinstance(embeddings, MiniCPMEmbedding):
        return embeddings.embedder or embeddings.model
    return LlamaIndexEmbedder(embeddings) if isinstance(embeddings, BaseEmbedding) else embeddings
