"""Thresholds that refuse questions, calibrated on both kinds: of how near passages are, and of the model's own odds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from minicpm_core.rag import Language, Passage, RagSettings, is_out_of_scope
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


@dataclass(frozen=True)
class AskedFirst:
    """`RagSettings.min_answerability`, and what it does to the questions it was chosen on."""

    min_answerability: Mapping[Language, float]
    refused: tuple[int, int]
    false_refusals: tuple[int, int]

    def apply(self, settings: RagSettings) -> RagSettings:
        """Return the settings with these thresholds."""
        return replace(settings, min_answerability=self.min_answerability)


def calibrate_asking(answers: Sequence[Answered], most_false: float = MOST_FALSE) -> AskedFirst | None:
    """Return the odds below which to refuse, per language; None where they tell the two kinds apart in no language.

    Of the thresholds that refuse at most `most_false` of the answerable questions the one is taken that sets the two
    kinds apart best (share of right refusals less share of false ones: Youden 1950), in the middle of its gap.

    Args:
        answers: to questions of both kinds, with their `answerability`.
        most_false: share of the answerable questions that may be refused, 0 to 1.
    """
    least: dict[Language, float] = {}
    for language in ("en", "zh"):
        some = [given for given in answers if given.question.language == language]
        wanted, others = ([_odds(g) for g in some if (g.question.source is None) is kind] for kind in (False, True))
        if wanted and others and (limit := _separate(wanted, others, math.floor(most_false * len(wanted)))) is not None:
            least[language] = limit
    chosen = RagSettings(min_answerability=least)
    below = [(given.question.source is None, _is_unlikely(given, chosen)) for given in answers]
    refused, false = ([said for none, said in below if none is kind] for kind in (True, False))
    return AskedFirst(least, (sum(refused), len(refused)), (sum(false), len(false))) if least else None


def _separate(wanted: Sequence[float], others: Sequence[float], allowed: int) -> float | None:
    """Return the number below which most of the others and at most `allowed` of the wanted lie; None for none."""
    places = sorted({*wanted, *others})
    best, limit = 0.0, None
    for below, above in pairwise(places):
        false, right = sum(one < above for one in wanted), sum(one < above for one in others)
        if false <= allowed and (gain := right / len(others) - false / len(wanted)) > best:
            best, limit = gain, round((below + above) / 2, 3)
    return limit


def _odds(given: Answered) -> float:
    assert given.answerability is not None
    return given.answerability


def _is_unlikely(given: Answered, settings: RagSettings) -> bool:
    return _odds(given) < settings.min_answerability.get(given.question.language, -math.inf)


def cross_calibrate(
    answers: Sequence[Answered], settings: RagSettings, most_false: float = MOST_FALSE, *, asking: bool = False
) -> list[Answered]:
    """Return the answers as a calibrated threshold would have let them pass: refusals where it refuses.

    The threshold of each half (every second question of a kind and language) is calibrated on the other half, so that
    the figures are those of questions that it was not chosen on.

    Args:
        answers: to questions of both kinds.
        settings: say the refusals.
        most_false: share of the answerable questions that a threshold may refuse, 0 to 1.
        asking: calibrate `min_answerability`, else `min_similarity` and `min_coverage`.

    Raises:
        ValueError: there are fewer than two questions of one kind.
    """
    ordered = sorted(answers, key=lambda given: given.question.language)
    kinds = [[given for given in ordered if (given.question.source is None) is kind] for kind in (True, False)]
    halves = [[given for kind in kinds for given in kind[start::2]] for start in (0, 1)]
    passed: list[Answered] = []
    for half, other in (halves, halves[::-1]):
        threshold: Threshold | AskedFirst | None
        if asking:
            threshold = calibrate_asking(other, most_false)
        else:
            threshold = calibrate([(given.question, given.passages) for given in other], most_false)
        chosen = threshold.apply(settings) if threshold else settings
        for given in half:
            refused = _is_unlikely(given, chosen) if asking else is_out_of_scope(given.passages, chosen)
            passed.append(replace(given, answer=settings.refusals[given.question.language]) if refused else given)
    return passed


def _nearest(passages: Sequence[Passage]) -> tuple[float, float]:
    """Return what `is_out_of_scope` compares: the best similarity and the best coverage."""
    similarity = max((p.similarity for p in passages if p.similarity is not None), default=0.0)
    return similarity, max(p.coverage for p in passages)
