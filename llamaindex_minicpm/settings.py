"""One call that makes LlamaIndex local."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding

from llamaindex_minicpm.embeddings import MiniCPMEmbedding
from llamaindex_minicpm.llms import MiniCPM

if TYPE_CHECKING:
    from minicpm_core.index import Embedder


def use_minicpm(
    model: str | Path | None = None,
    *,
    embeddings: str | Path | Embedder | BaseEmbedding | None = None,
    chunk_size: int | None = None,
    **options: Any,
) -> MiniCPM:
    """Set LlamaIndex's default language model, embedding model and tokenizer; nothing is loaded until it is used.

    Args:
        model: see `MiniCPM`; None is its default.
        embeddings: name of an embedding model, an embedder, or a LlamaIndex embedding; None is `MiniCPMEmbedding()`.
        chunk_size: tokens per chunk of LlamaIndex's own splitter; None leaves it as it is.
        **options: further arguments of `MiniCPM`.

    Returns:
        The language model that was set.
    """
    llm = MiniCPM(**options) if model is None else MiniCPM(model=str(model), **options)
    Settings.llm = llm
    Settings.embed_model = _to_embedding(embeddings)
    if llm.base_url is None:  # a server does not tell its token ids
        Settings.tokenizer = llm.tokenize
    if chunk_size is not None:
        Settings.chunk_size = chunk_size
    return llm


def _to_embedding(embeddings: Any) -> BaseEmbedding:
    if isinstance(embeddings, BaseEmbedding):
        return embeddings
    if embeddings is None:
        return MiniCPMEmbedding()
    if isinstance(embeddings, (str, Path)):
        return MiniCPMEmbedding(model=str(embeddings))
    return MiniCPMEmbedding(model=type(embeddings).__name__, embedder=embeddings)
