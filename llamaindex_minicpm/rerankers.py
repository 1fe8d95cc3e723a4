"""MiniCPM-Reranker, or any other reranker, as a LlamaIndex node postprocessor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

if TYPE_CHECKING:
    from minicpm_core.index.reranking import Reranker


class MiniCPMRerank(BaseNodePostprocessor):
    """Puts nodes in the order in which they answer a query; the model is loaded at the first query.

    Args:
        model: a folder in the hub's layout, or a hub id such as "openbmb/MiniCPM-Reranker-Light".
        top_n: nodes to keep; None keeps all.
        instruction: what the queries are for, where the model takes it.
        quantization: "int4", "int8", "none" or "auto".
        dtype: "auto", "bfloat16", "float16" or "float32".
        device: "auto", "cpu", "cuda" or "cuda:N".
        memory_limit: bytes, or such as "4GiB".
        batch_size: pairs per forward pass.
        revision: branch, tag or commit on the hub.
        scorer: scores instead of `model`: a cross-encoder, a loaded chat model (`MiniCPM` or an engine, asked for yes
            or no), or what has `score(query, documents)`.
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

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "MiniCPMRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("a query is needed to rank by; call postprocess_nodes(nodes, query_str=...)")
        texts = [node.node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        scores = self.score(query_bundle.query_str, texts)
        ranked = sorted(zip(scores, nodes, strict=True), key=lambda pair: -pair[0])
        return [NodeWithScore(node=node.node, score=score) for score, node in ranked[: self.top_n]]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return one score per text, in order; higher is better."""
        return self.load_model().score(query, documents)

    def load_model(self) -> Reranker:
        """Return the loaded model, or what scores instead of it."""
        from minicpm_core.index.reranking import resolve_reranker
        from minicpm_core.retrieval_models import RerankerModel

        with self._lock:
            if self._model is None:
                names = set(type(self).model_fields) - {"model", "top_n", "callback_manager", "scorer"}
                options = {name: getattr(self, name) for name in names}
                model = RerankerModel(self.model, **options) if self.scorer is None else resolve_reranker(self.scorer)
                self._model = model
            return self._model
