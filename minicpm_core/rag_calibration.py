"""A threshold that refuses questions by how near the found passages are, calibrated on questions of both kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from minicpm_core.rag import Passage, RagSettings, is_out_of_scope
from minicpm_core.rag_evaluation import Answered, Question

MOST_FALSE = 0.05
"""Share of the answerable questions that a threshold may refuse."""
_COVERAGES = [step / 20 for step in range(21)]


@dataclass(frozen=True)
class Threshold:
    """`RagSettings.min_similarity` and `min_coverage`, and what they do to the questions they were chosen on."""

    min_similarity: float
    min_coverage: float
    refused: tuple[int, int]
    false_refusals: tuple[int, int]

    def apply(self, settings: RagSettings) -> RagSettings:
        """Return the settings with this threshold."""
        return replace(settings, min_similarity=self.min_similarity, min_coverage=self.min_coverage)


def calibrate(found: Sequence[tuple[Question, Sequence[Passage]]], most_false: float = MOST_FALSE) -> Threshold | None:
    """Return the threshold that refuses most unanswerable questions and few answerable ones; None where none refuses.

    For each `min_coverage` in steps of 0.05 the highest `min_similarity` is taken that stays within `most_false`.

    Args:
        found: questions of both kinds, and the passages that the pipeline shows for each.
        most_false: share of the answerable questions that may be refused, 0 to 1.

    Raises:
        ValueError: there are no questions of one kind.
    """
    points = [(question.source is not None, *_nearest(passages)) for question, passages in found if passages]
    answerable = sum(wanted for wanted, _, _ in points)
    if not 0 < answerable < len(points):
        raise ValueError("a threshold needs questions that the documents answer and questions that they do not")
    best: Threshold | None = None
    for least in _COVERAGES:
        wanted = sorted(similarity for is_wanted, similarity, covered in points if is_wanted and covered < least)
        others = sorted(similarity for is_wanted, similarity, covered in points if not is_wanted and covered < least)
        allowed = math.floor(most_false * answerable)
        highest = wanted[allowed] if len(wanted) > allowed else (others[-1] if others else -1.0) + 0.001
        limit = math.floor(min(highest, 1.0) * 1000) / 1000
        refused, false = sum(one < limit for one in others), sum(one < limit for one in wanted)
        if refused and (best is None or (refused, -false) > (best.refused[0], -best.false_refusals[0])):
            best = Threshold(limit, least, (refused, len(points) - answerable), (false, answerable))
    return best


def cross_calibrate(
    answers: Sequence[Answered], settings: RagSettings, most_false: float = MOST_FALSE
) -> list[Answered]:
    """Return the answers as a calibrated threshold would have let them pass: refusals where it refuses.

    The threshold of each half (every second question of a kind) is calibrated on the other half, so that the figures
    are those of questions that it was not chosen on.

    Raises:
        ValueError: there are fewer than two questions of one kind.
    """
    kinds = [[given for given in answers if (given.question.source is None) is kind] for kind in (True, False)]
    halves = [[given for kind in kinds for given in kind[start::2]] for start in (0, 1)]
    passed: list[Answered] = []
    for half, other in (halves, halves[::-1]):
        threshold = calibrate([(given.question, given.passages) for given in other], most_false)
        chosen = threshold.apply(settings) if threshold else settings
        passed += [
            replace(given, answer=settings.refusals[given.question.language])
            if is_out_of_scope(given.passages, chosen)
            else given
            for given in half
        ]
    return passed


def _nearest(passages: Sequence[Passage]) -> tuple[float, float]:
    """Return what `is_out_of_scope` compares: the best similarity and the best coverage."""
    similarity = max((p.similarity for p in passages if p.similarity is not None), default=0.0)
    return similarity, max(p.coverage for p in passages)
