"""A second opinion on the best passages: any model that scores a text for a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from minicpm_core.rag import Passage

RERANKED = 20
"""The candidates that a reranker sees, where not more are asked for."""


class Reranker(Protocol):
    """What tells how well texts answer a question; MiniCPM-Reranker and `YesNoReranker` are such."""

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return one score per document, in order; higher is better."""
        ...


class CrossEncoderReranker:
    """A cross-encoder of sentence-transformers.

    Args:
        model: what has `predict(pairs)`, or the name or folder of one, which is loaded here on the CPU.
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, str | Path):
            try:
                from sentence_transformers import CrossEncoder
            except ImportError as error:
                raise ImportError(
                    f'the cross-encoder {model} needs sentence-transformers: pip install "minicpm-integrations[rag]"',
                    name=error.name,
                ) from error
            model = CrossEncoder(str(model), device="cpu")
        self.model = model

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return one score per document, in order; higher is better."""
        if not documents:
            return []
        return [float(score) for score in self.model.predict([(query, document) for document in documents])]


def resolve_reranker(reranker: Any) -> Reranker:
    """Return what scores passages.

    Args:
        reranker: what has `score(query, documents)`; a cross-encoder, which has `predict(pairs)`; a loaded chat model
            (`minicpm_core.load`) or a framework's class over one, which is asked for yes or no; or the name or folder
            of MiniCPM-Reranker or of a cross-encoder of sentence-transformers.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(reranker, str | Path):
        return _load(str(reranker))
    if callable(getattr(reranker, "score", None)):
        return reranker  # type: ignore[no-any-return]
    if callable(getattr(reranker, "load_engine", None)):
        reranker = reranker.load_engine()
    if callable(getattr(reranker, "prepare", None)) and callable(getattr(reranker, "tokenize", None)):
        from minicpm_core.yes_no import YesNoReranker

        return YesNoReranker(reranker)
    if callable(getattr(reranker, "predict", None)):
        return CrossEncoderReranker(reranker)
    raise TypeError(
        f"reranker is a {type(reranker).__name__}; accepted: an object with score(query, documents) or predict(pairs), "
        "an engine, or the name of MiniCPM-Reranker or of a cross-encoder"
    )


def _load(name: str) -> Reranker:
    from minicpm_core.checkpoints import open_checkpoint
    from minicpm_core.retrieval_families import RERANKERS, find_retrieval

    try:
        find_retrieval(RERANKERS, open_checkpoint(name).config)
    except ValueError:
        return CrossEncoderReranker(name)
    from minicpm_core.retrieval_models import RerankerModel

    return RerankerModel(name)


def rerank(query: str, passages: Sequence[Passage], reranker: Reranker) -> list[Passage]:
    """Return the passages in the order of the reranker's scores, which become theirs."""
    scores = reranker.score(query, [passage.text for passage in passages])
    scored = [replace(passage, score=score) for passage, score in zip(passages, scores, strict=True)]
    return sorted(scored, key=lambda passage: -passage.score)
