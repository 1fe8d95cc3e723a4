"""MiniCPM-Reranker, or any other reranker, as a LangChain document compressor."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr

if TYPE_CHECKING:
    from minicpm_core.index.reranking import Reranker


class MiniCPMReranker(BaseDocumentCompressor):
    """Puts documents in the order in which they answer a query; the model is loaded at the first query.

    Args:
        model: a folder in the hub's layout, or a hub id such as "openbmb/MiniCPM-Reranker-Light".
        top_n: documents to keep; None keeps all.
        instruction: what the queries are for, where the model takes it.
        quantization: "int4", "int8", "none" or "auto".
        dtype: "auto", "bfloat16", "float16" or "float32".
        device: "auto", "cpu", "cuda" or "cuda:N".
        memory_limit: bytes, or such as "4GiB".
        batch_size: pairs per forward pass.
        revision: branch, tag or commit on the hub.
        scorer: scores instead of `model`: a cross-encoder, a loaded chat model (`ChatMiniCPM` or an engine, asked for
            yes or no), or what has `score(query, documents)`.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = "openbmb/MiniCPM-Reranker-Light"
    top_n: int | None = Field(default=None, ge=1)
    instruction: str | None = None
    quantization: str | None = "auto"
    dtype: str = "auto"
    device: str = "auto"
    memory_limit: int | str | None = None
    batch_size: int = 8
    revision: str | None = None
    scorer: Any = Field(default=None, exclude=True)
    _model: Reranker | None = PrivateAttr(default=None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents, best first, with the score in `metadata["relevance_score"]`."""
        scores = self.score(query, [document.page_content for document in documents])
        ranked = sorted(zip(scores, documents, strict=True), key=lambda pair: -pair[0])
        return [
            document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
            for score, document in ranked[: self.top_n]
        ]

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return one score per text, in order; higher is better."""
        return self.load_model().score(query, documents)

    def load_model(self) -> Reranker:
        """Return the loaded model, or what scores instead of it."""
        from minicpm_core.index.reranking import resolve_reranker
        from minicpm_core.retrieval_models import RerankerModel

        with self._lock:
            if self._model is None:
                options = self.model_dump(exclude={"model", "top_n"})
                model = RerankerModel(self.model, **options) if self.scorer is None else resolve_reranker(self.scorer)
                self._model = model
            return self._model
