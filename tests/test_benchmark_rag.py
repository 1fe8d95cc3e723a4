"""The parts of `benchmarks.rag` that count, on cases counted by hand."""

from __future__ import annotations

from benchmarks.rag import other_half
from benchmarks.rag_causes import describe_odds
from minicpm_core.rag_evaluation import Question


def test_the_other_half_takes_every_second_question_of_each_kind() -> None:
    plain = [Question(text, "a") for text in ("one", "two", "three", "一", "二")]
    asked = [*plain, Question("four", "a"), Question("five", "a"), Question("三", "a")]
    ranks = (1, 2, 3, 4, 5, 6, None, 8)
    assert other_half(ranks, asked, plain) == (2, 5, None)


def test_what_a_threshold_on_the_odds_could_reach() -> None:
    wanted = [(Question(str(n), "a"), float(n)) for n in range(20)]
    others = [(Question(f"no {n}"), 8.5 + n) for n in range(20)]
    (line,) = describe_odds([*wanted, *others])
    assert "area under the curve of 0.83" in line  # 334 of 400 pairs
    assert "5 % false refusals leave 10 of 20 (50.0 %) right ones" in line
    assert "85 % right ones cost 8 of 20 (40.0 %) false ones" in line
