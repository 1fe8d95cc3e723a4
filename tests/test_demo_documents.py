"""The written documents that the demo checkpoint is trained on, and the questions that are drawn from them."""

from __future__ import annotations

from random import Random

import pytest

from minicpm_core.rag import Language, write_line
from tools.demo_model.document_tasks import KINDS, Kind, _numeral, ask_yes_no, draw_question
from tools.demo_model.documents import load_documents, parse

TEXT = """@ Dryer
S The tank is emptied after {n} loads.
Q When is the tank emptied?
R When does the water have to go?
N What does a tank cost?
"""


def test_a_file_is_read_line_by_line() -> None:
    (document,) = parse(TEXT, "en_x.txt")
    (line,) = document.lines
    assert (document.title, line.sentence) == ("Dryer", "The tank is emptied after {n} loads.")
    assert (line.own, line.other) == (["When is the tank emptied?"], ["When does the water have to go?"])
    assert document.unanswered == ["What does a tank cost?"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("N What", "X What", "en_x.txt:5.*a line is '@ title'"),
        ("{n}", "{number}", "en_x.txt:2.*unknown slots"),
        ("{n}", "{n", "en_x.txt:2.*a slot is written"),
        ("@ Dryer\n", "", "en_x.txt:1.*nothing stands above"),
        ("R When does the water have to go?\n", "", "needs a Q and an R line"),
        ("the tank emptied", "{person}'s tank emptied", "slots of no sentence"),
    ],
)
def test_a_wrong_line_is_named(old: str, new: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(TEXT.replace(old, new), "en_x.txt")


def test_every_document_is_well_formed_and_none_is_trained_and_held_out() -> None:
    languages: tuple[Language, ...] = ("en", "zh")
    trained, held_out = ([d for lang in languages for d in load_documents(lang, held_out=h)] for h in (False, True))
    assert len(trained) + len(held_out) == 1220
    sentences = {line.sentence for document in trained for line in document.lines}
    both = [line.sentence for document in held_out for line in document.lines if line.sentence in sentences]
    assert both == []


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_question_comes_with_the_passage_that_answers_it_or_without(kind: Kind, language: Language) -> None:
    rng = Random(f"{kind} {language}")
    for _ in range(60):
        most = rng.randint(0, 4)
        question, right, others = draw_question(rng, language, kind, most=most, held_out=True)
        assert question.strip()
        assert "{" not in question
        assert all(text == write_line(text) and "{" not in text for text in (*others, right or ""))
        assert (right is not None) == kind.endswith("words")
        assert right not in others
        assert len(others) <= most if right else 1 <= len(others) <= max(1, most)


def test_yes_stands_for_the_passage_that_answers() -> None:
    rng = Random(4)
    answers = [ask_yes_no(rng, 1.0, "zh").answer for _ in range(200)]
    assert set(answers) == {"是", "否"}
    assert 70 < answers.count("是") < 130


@pytest.mark.parametrize(
    ("number", "text"), [(2, "二"), (10, "十"), (15, "十五"), (110, "一百一十"), (305, "三百零五"), (2005, "二千零五")]
)
def test_chinese_numerals(number: int, text: str) -> None:
    assert _numeral(number) == text
