"""MiniCPM-Reranker as a LlamaIndex node postprocessor."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

if TYPE_CHECKING:
    from minicpm_core.retrieval_models import RerankerModel


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
        scores = self.load_model().score(query_bundle.query_str, texts)
        ranked = sorted(zip(scores, nodes, strict=True), key=lambda pair: -pair[0])
        return [NodeWithScore(node=node.node, score=score) for score, node in ranked[: self.top_n]]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def load_model(self) -> RerankerModel:
        """Return the loaded model."""
        from minicpm_core.retrieval_models import RerankerModel

        with self._lock:
            if self._model is None:
                names = set(type(self).model_fields) - {"model", "top_n", "callback_manager"}
                self._model = RerankerModel(self.model, **{name: getattr(self, name) for name in names})
            return self._model
