"""Hits with the text around them, as far as a budget of tokens allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minicpm_core.index.catalog import Catalog, StoredChunk
from minicpm_core.index.splitter import CountTokens
from minicpm_core.rag import Passage


def join_neighbours(
    passages: Sequence[Passage], catalog: Catalog, budget: int, count_tokens: CountTokens
) -> list[Passage]:
    """Return the passages in their order, each with as many of its neighbours on the page as the budget has room for.

    In turns, the best passage first, the one behind before the one in front. What is another hit, or joined to one, is
    not joined again. "start" and "end" in the metadata tell the place of the whole text, "chunk" still the hit.

    Args:
        passages: hits, best first.
        catalog: of their index.
        budget: tokens of all passages together; the hits themselves are kept in any case.
        count_tokens: length of a text in tokens.
    """
    texts = {p.id: catalog.page_text(p.metadata["path"], p.metadata.get("part", 0)) for p in passages}
    ends = {p.id: [_chunk(p), _chunk(p)] for p in passages}  # first and last of what is joined
    costs = {p.id: count_tokens(p.text) for p in passages}
    taken = set(ends)
    left = budget - sum(costs.values())
    open_ends = [(p.id, side) for p in passages if texts[p.id] is not None for side in (1, 0)]
    while open_ends and left > 0:
        still = []
        for hit, side in open_ends:
            next_one = catalog.beside(ends[hit][side], 1 if side else -1)
            if next_one is None or next_one.id in taken:
                continue
            joined = [*ends[hit]]
            joined[side] = next_one
            cost = count_tokens(_text(texts[hit], joined))
            if cost - costs[hit] > left:
                continue
            left -= cost - costs[hit]
            costs[hit], ends[hit] = cost, joined
            taken.add(next_one.id)
            still.append((hit, side))
        open_ends = still
    return [_widen(p, texts[p.id], ends[p.id]) for p in passages]


def _chunk(passage: Passage) -> StoredChunk:
    return StoredChunk(passage.id, passage.text, passage.metadata)


def _text(page: str | None, ends: Sequence[StoredChunk]) -> str:
    return (page or "")[ends[0].metadata["start"] : ends[1].metadata["end"]]


def _widen(passage: Passage, page: str | None, ends: Sequence[StoredChunk]) -> Passage:
    if ends[0].id == ends[1].id:
        return passage
    places = {"start": ends[0].metadata["start"], "end": ends[1].metadata["end"]}
    return replace(passage, text=_text(page, ends), metadata={**passage.metadata, **places})
