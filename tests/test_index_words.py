"""The terms that passages are found by, the fusion of both lists, and what is known about embedding models."""

from __future__ import annotations

import pytest

from minicpm_core.index.embedders import SentenceTransformerEmbedder, knows_language
from minicpm_core.index.fusion import fuse
from minicpm_core.index.words import coverage, fold, passage_words, question_words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("batteries", "battery"),
        ("charging", "charge"),
        ("charged", "charge"),
        ("running", "run"),
        ("classes", "class"),
        ("monthly", "month"),
        ("applied", "apply"),
        ("repairs", "repair"),
    ],
)
def test_forms_of_a_word_meet(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_different_words_stay_apart() -> None:
    assert len({fold(word) for word in ("ring", "bed", "bus", "this", "x200", "string", "need")}) == 7


def test_passage_words() -> None:
    words = passage_words("Rent：1,200 元/月，V3.5")
    assert words.words == ("rent", "1200", "v3", "5")
    assert words.characters == ("元", "月")
    assert passage_words("合同到期").words == ("合同", "同到", "到期")


@pytest.mark.parametrize(
    ("question", "words", "alone"),
    [
        ("押金什么时候退还？", ("押金", "退还"), ()),
        ("鱼怎么蒸？", (), ("鱼", "蒸")),
        ("每个月的租金是多少？", ("每月", "租金"), ()),
        ("这次会议的目的是什么？", ("这次", "次会", "会议", "目的"), ()),
        ("What is the rent of the flat?", ("rent", "flat"), ()),
        ("谁？", (), ("谁",)),
    ],
)
def test_question_words(question: str, words: tuple[str, ...], alone: tuple[str, ...]) -> None:
    found = question_words(question)
    assert found.words == words
    assert found.alone == alone


def test_coverage_is_the_share_of_the_questions_words() -> None:
    question = question_words("When was the big lighthouse built?")
    assert coverage(question, passage_words("The lighthouse was built in 1847.")) == pytest.approx(2 / 3)
    assert coverage(question, passage_words("Nothing.")) == 0.0


def test_a_passage_with_all_words_beats_a_near_tie_of_vectors() -> None:
    scores = fuse(["x", "y", "z"], [("z", 3.0)], {"x": 0.0, "y": 0.0, "z": 1.0}, dense_weight=1.0)
    assert max(scores, key=lambda i: scores[i]) == "z"
    assert scores["x"] == pytest.approx(1 / 6)
    assert scores["z"] == pytest.approx(1 / 8 + 1.6 / 6)


def test_one_word_of_many_does_not_beat_the_nearest_vectors() -> None:
    lexical = [("w", 3.0), ("v", 2.0)]
    scores = fuse(["x", "y", "w"], lexical, {"x": 0.0, "y": 0.0, "w": 0.2, "v": 0.2}, dense_weight=1.0)
    assert sorted(scores, key=lambda i: -scores[i]) == ["x", "w", "y", "v"]
    alone = fuse(["x"], lexical, {"x": 0.0, "w": 0.5, "v": 0.2}, dense_weight=0.0)
    assert sorted(alone, key=lambda i: -alone[i]) == ["w", "v", "x"]


def test_english_models_are_not_asked_about_chinese() -> None:
    assert not knows_language("demo", cjk=True)
    assert knows_language("demo", cjk=False)
    assert not knows_language("langchain_huggingface.HuggingFaceEmbeddings:all-MiniLM-L6-v2", cjk=True)
    assert knows_language("intfloat/multilingual-e5-small", cjk=True)


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("intfloat/multilingual-e5-small", ("query: ", "passage: ")),
        ("intfloat/e5-base-v2", ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large-instruct", ("", "")),
        ("demo", ("", "")),
    ],
)
def test_prefixes(name: str, prefixes: tuple[str, str]) -> None:
    assert SentenceTransformerEmbedder(name)._prefixes() == prefixes
