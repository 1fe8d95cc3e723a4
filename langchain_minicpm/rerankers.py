"""MiniCPM-Reranker as a LangChain document compressor."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr

if TYPE_CHECKING:
    from minicpm_core.retrieval_models import RerankerModel


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
    _model: RerankerModel | None = PrivateAttr(default=None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the documents, best first, with the score in `metadata["relevance_score"]`."""
        scores = self.load_model().score(query, [document.page_content for document in documents])
        ranked = sorted(zip(scores, documents, strict=True), key=lambda pair: -pair[0])
        return [
            document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
            for score, document in ranked[: self.top_n]
        ]

    def load_model(self) -> RerankerModel:
        """Return the loaded model."""
        from minicpm_core.retrieval_models import RerankerModel

        with self._lock:
            if self._model is None:
                options = self.model_dump(exclude={"model", "top_n"})
                self._model = RerankerModel(self.model, **options)
            return self._model
