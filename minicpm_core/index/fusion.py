"""Two ranked lists, of vectors and of words, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RRF_K = 5
"""Rank constant of the fusion. The 60 of Cormack et al. joins dozens of long lists; of two, the first places count."""


def fuse(
    dense: Sequence[str], lexical: Sequence[tuple[str, float]], covered: Mapping[str, float], *, dense_weight: float
) -> dict[str, float]:
    """Return the fused score of every passage in either list.

    Reciprocal-rank fusion (Cormack et al. 2009), where the word list counts by the square of the share of the question
    that a passage holds: a passage with all the words beats one that only stands next to it in the dense list, and one
    word of many beats nothing. The numbers were chosen on one half of `benchmarks/rag_set`; docs/rag.md has the other.
    """
    scores = {i: dense_weight / (RRF_K + rank) for rank, i in enumerate(dense, start=1)}
    for rank, (i, _) in enumerate(lexical, start=1):
        scores[i] = scores.get(i, 0.0) + (0.1 + 1.5 * covered[i] ** 2) / (RRF_K + rank)
    return scores
