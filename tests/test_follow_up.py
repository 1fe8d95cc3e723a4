"""Questions that follow others: what the model is asked, what of its answer counts, and what helps where it fails."""

from __future__ import annotations

import pytest

from minicpm_core import load
from minicpm_core.follow_up import (
    LINE_GRAMMAR,
    LONGEST,
    add_terms,
    condense_messages,
    condense_options,
    search_query,
    settle_question,
)
from minicpm_core.index.words import content_words
from minicpm_core.rag import REFUSALS, RagSettings

SETTINGS = RagSettings()
LAMP = [
    {"role": "user", "content": "What does the Aurora lamp cost?"},
    {"role": "assistant", "content": "It costs 35 EUR [1]."},
]
DEPOSIT = [{"role": "user", "content": "押金是多少？"}, {"role": "assistant", "content": "两倍 [1]。"}]


def test_the_model_is_asked_for_a_question_that_stands_alone() -> None:
    prompt = condense_messages("And its weight?", LAMP, SETTINGS)[0]["content"]
    assert prompt.endswith(
        "user: What does the Aurora lamp cost?\nassistant: It costs 35 EUR [1].\n\nLast question: And its weight?"
    )
    assert condense_messages("什么时候退？", DEPOSIT, SETTINGS)[0]["content"].startswith("把最后一个问题改写")


def test_the_earliest_turns_give_way() -> None:
    def count(messages: list[dict[str, str]]) -> int:
        return len(messages[0]["content"])

    long = [{"role": "user", "content": f"turn {n} " + "x" * 100} for n in range(5)]
    prompt = condense_messages("Why?", long, SETTINGS, room=450, count_tokens=count)[0]["content"]
    assert len(prompt) <= 450
    assert [n for n in range(5) if f"turn {n}" in prompt] == [3, 4] or "turn 2" in prompt
    assert "turn 0" not in prompt
    only = condense_messages("Why?", long, SETTINGS, room=1, count_tokens=count)[0]["content"]
    assert "turn 4" in only
    assert "turn 3" not in only


@pytest.mark.parametrize(
    ("said", "question"),
    [
        (" What does the Aurora lamp weigh?\n", "What does the Aurora lamp weigh?"),
        ('Question: "How heavy is the Aurora lamp?"\nIt weighs 2 kg.', "How heavy is the Aurora lamp?"),
        ("Rewritten question: weight of the Aurora lamp", "weight of the Aurora lamp"),
    ],
)
def test_a_rewriting_counts(said: str, question: str) -> None:
    assert settle_question(said, "And its weight?", LAMP, SETTINGS) == question


BAD = {
    "nothing": "  \n ",
    "an answer with a citation": "The weight of the lamp is 2 kg [1].",
    "what was said before": "What does the Aurora lamp cost?",
    "a refusal": REFUSALS["en"],
    "another language": "极光台灯有多重？",
    "something else": "Which countries border the Black Sea in the south?",
    "endless": "What does the Aurora lamp weigh " * 8,
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_rewriting_leaves_the_question_with_the_last_words(kind: str) -> None:
    assert settle_question(BAD[kind], "And its weight?", LAMP, SETTINGS) == "And its weight? (Aurora lamp cost)"


@pytest.mark.parametrize(
    ("question", "history", "found"),
    [
        ("And its weight?", [], "And its weight?"),
        ("What about the blue one?", LAMP, "What about the blue one? (Aurora lamp cost)"),
        ("How heavy is the Aurora?", LAMP, "How heavy is the Aurora? (lamp cost)"),  # two words of its own
        ("Who repairs the roof of the tall house?", LAMP, "Who repairs the roof of the tall house?"),
        ("Is it sold at Hamburg harbour?", LAMP, "Is it sold at Hamburg harbour? (Aurora lamp cost)"),
        ("那什么时候退还？", DEPOSIT, "那什么时候退还？（押金）"),
        ("押金什么时候退？", DEPOSIT, "押金什么时候退？"),
        ("Why?", [{"role": "user", "content": "Why?"}], "Why?"),
    ],
)
def test_the_last_words_help_questions_that_lean_on_them(
    question: str, history: list[dict[str, str]], found: str
) -> None:
    assert add_terms(question, history) == found


def test_content_words_stand_as_they_are() -> None:
    assert content_words("How long is the Warranty of Dr. Ohm's lamp, 3.50 EUR?") == [
        "long", "Warranty", "Dr", "Ohm", "lamp", "3.50", "EUR",
    ]  # fmt: skip
    assert content_words("押金什么时候退还？") == ["押金", "退还"]


def test_the_question_before_can_stand_in_front() -> None:
    assert search_query("And its weight?", LAMP) == "What does the Aurora lamp cost? And its weight?"
    assert search_query("And its weight?", []) == "And its weight?"


def test_a_real_model_writes_one_short_line() -> None:
    with load("demo") as engine:
        options = condense_options(engine, grammar=True)
        assert options == {
            "temperature": 0.0,
            "max_tokens": LONGEST,
            "enable_thinking": False,
            "grammar": LINE_GRAMMAR,
        }
        messages = condense_messages("And its weight?", LAMP, SETTINGS)
        said = engine.generate(messages, grammar=LINE_GRAMMAR).content
        assert 1 <= len(said) <= 400
        assert "\n" not in said
        assert settle_question(said, "And its weight?", LAMP, SETTINGS) == "And its weight? (Aurora lamp cost)"
