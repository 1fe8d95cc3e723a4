"""Finds pages that are stored as pictures, and puts them between the passages that were found by their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minicpm_core.index.catalog import Catalog
from minicpm_core.index.fusion import RRF_K
from minicpm_core.index.page_models import PageEmbedder
from minicpm_core.index.picture_store import PictureStore, recorded_page_embedder
from minicpm_core.index.residence import release_unless_fitting
from minicpm_core.index.store import similarities
from minicpm_core.rag import Passage

WEIGHT = 1.2
"""Of a picture's rank: it stands below a passage that is nearest and has a quarter of the question's words or more.

Measured with `benchmarks.visual_rag`: with more, pages push passages that answer out of a prompt, and with less the
other way round.
"""


class PictureSearch:
    """The pictures of an opened index.

    Args:
        directory: the folder of the index.
        catalog: of the index.
        store: its pictures.
        page_embeddings: see `Index.open`; needed at the first search.
    """

    def __init__(
        self, directory: Path, catalog: Catalog, store: PictureStore, page_embeddings: str | Path | PageEmbedder | None
    ) -> None:
        self._directory, self._catalog, self.store = directory, catalog, store
        self._given = page_embeddings
        self._embedder: PageEmbedder | None = None

    @property
    def loaded(self) -> bool:
        """Whether the embedder was asked for."""
        return self._embedder is not None

    @property
    def embedder(self) -> PageEmbedder:
        """What embeds questions for the pictures."""
        if self._embedder is None:
            self._embedder = recorded_page_embedder(self._catalog, self._directory, self._given)[1]
        return self._embedder

    def search(
        self, query: str, n: int, where: Mapping[str, Any] | None, others: Sequence[Any], limit: int | None
    ) -> list[Passage]:
        """Return the `n` best pages, best first.

        Args:
            query: the question.
            n: pages at most.
            where: as of `Index.search`.
            others: models that may lie in memory, released first where the embedder does not fit beside them.
            limit: bytes of all of them together; None is no limit.
        """
        embedder = self.embedder
        release_unless_fitting(embedder, others, limit)
        vector = embedder.embed_query(query)
        near = similarities(self.store.collection, vector, min(n, self.store.count()), dict(where) if where else None)
        stored = self.store.get([key for key, _ in near])
        found = []
        for rank, (key, similarity) in enumerate((pair for pair in near if pair[0] in stored), start=1):
            page = stored[key]
            metadata = {**page.metadata, "thumbnail": str(self._directory / page.metadata["thumbnail"])}
            found.append(
                Passage(
                    id=key,
                    text=page.text,
                    source=metadata["source"],
                    page=metadata.get("page"),
                    score=WEIGHT / (RRF_K + rank),
                    similarity=similarity,
                    metadata=metadata,
                )
            )
        return found


def merge(texts: Sequence[Passage], pictures: Sequence[Passage], n: int, *, reranked: bool) -> list[Passage]:
    """Return the `n` best of both; a reranker's scores do not compare, so that its order counts by rank."""
    if reranked:
        texts = [replace(text, score=WEIGHT / (RRF_K + rank)) for rank, text in enumerate(texts, start=1)]
    return sorted([*texts, *pictures], key=lambda passage: -passage.score)[:n]
