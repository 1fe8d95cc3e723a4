"""Grammars of answers: citations of given passages only, and answers that only quote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import minicpm_core
from minicpm_core.answer_grammar import answer_grammar, cite_grammar, quote_grammar
from minicpm_core.rag import REFUSALS, Passage, RagSettings
from minicpm_core.support import Support, find_sources, find_support
from tests.toy import write_llama
from tests.toy_grammars import accepted, byte_tokens

LAMP = 'The lamp is waterproof.  The warranty\nlasts two years. Dr. Ohm said "never".'
DEPOT = "北京仓库由王芳负责。冷藏室的温度保持在零下十八度。"


@pytest.mark.parametrize(
    "text", ["", "plain", "See [1] and [3].", "【2】 too", "a [note] and [[1]]", "x[", "[", "no [ 7] number\n第[2]条"]
)
def test_free_text_with_given_numbers_is_taken(text: str) -> None:
    assert accepted(cite_grammar(3), text, byte_tokens()) == ""


@pytest.mark.parametrize("text", ["[4]", "[0]", "[12]", "see [1, 2]", "【9】", "[[4]]", "[1"])
def test_numbers_that_were_not_given_are_refused(text: str) -> None:
    assert accepted(cite_grammar(3), text, byte_tokens()) != ""


def test_without_passages_no_number_can_be_cited() -> None:
    assert accepted(cite_grammar(0), "nothing", byte_tokens()) == ""
    assert accepted(cite_grammar(0), "[1]", byte_tokens()) != ""


QUOTES = quote_grammar([LAMP, "", DEPOT], REFUSALS["en"])


@pytest.mark.parametrize(
    "text",
    [
        REFUSALS["en"],
        "[1] The lamp is waterproof.",
        "[1] The warranty lasts two years.",
        '[1] The warranty lasts two years. Dr. Ohm said "never".',
        "[3] 冷藏室的温度保持在零下十八度。",
        "[3] 北京仓库由王芳负责。冷藏室的温度保持在零下十八度。\n[1] The lamp is waterproof.",
    ],
)
def test_whole_sentences_can_be_quoted(text: str) -> None:
    assert accepted(QUOTES, text, byte_tokens()) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1] ",
        "[2] ",
        "[1] The lamp",
        "[1] The lamp is red.",
        "[3] The lamp is waterproof.",
        '[1] The lamp is waterproof. Dr. Ohm said "never".',
        "The lamp is waterproof.",
        REFUSALS["en"] + " But",
    ],
)
def test_nothing_else_can(text: str) -> None:
    assert accepted(QUOTES, text, byte_tokens()) != ""


def test_the_settings_choose_the_grammar() -> None:
    settings = RagSettings(quote_only=True)
    assert answer_grammar("Why?", [LAMP], RagSettings()) == cite_grammar(1)
    assert answer_grammar("Why?", [LAMP], settings) == quote_grammar([LAMP], REFUSALS["en"])
    assert answer_grammar("为什么？", [LAMP], settings) == quote_grammar([LAMP], REFUSALS["zh"])


def test_random_weights_quote_and_what_is_forced_costs_no_step(tmp_path: Path) -> None:
    steps: list[int] = []
    lines = 0
    with minicpm_core.load(write_llama(tmp_path)) as engine:
        for seed in range(8):
            steps.clear()
            with engine.model.register_forward_hook(lambda *_: steps.append(1)):
                sampling = minicpm_core.Sampling(temperature=3.0, seed=seed, max_new_tokens=500)
                answer = engine.generate("?", grammar=QUOTES, sampling=sampling)
            assert answer.finish_reason == "stop"
            assert answer.usage is not None
            assert len(steps) < answer.usage.completion_tokens / 2
            for line in [] if answer.content == REFUSALS["en"] else answer.content.split("\n"):
                passage = {"1": LAMP, "3": DEPOT}[line[1]]
                assert line[4:] in " ".join(passage.split())
                lines += 1
    assert lines >= 3


def test_each_sentence_tells_what_it_rests_on() -> None:
    passages = [Passage("a", LAMP, "lamp.txt"), Passage("b", DEPOT, "depot.txt")]
    told = 'The warranty lasts two years [1]. Ohm said "always" [1].'
    answer = f"{told} 冷藏室的温度保持在零下十八度【2】。 Bananas grow. [1]"
    support = find_support(answer, passages)
    assert [s.sentence for s in support] == [
        "The warranty lasts two years [1].",
        'Ohm said "always" [1].',
        "冷藏室的温度保持在零下十八度【2】。",
        "Bananas grow. [1]",
    ]
    assert support[0] == Support("The warranty lasts two years [1].", 1, 1.0, True)
    assert (support[1].n, support[1].verbatim, support[1].unfound_quotes) == (1, False, ("always",))
    assert 0 < support[1].share < 1
    assert (support[2].n, support[2].share) == (2, 1.0)
    assert (support[3].share, support[3].verbatim) == (0.0, False)
    assert find_support("Anything.", [])[0].n is None
    assert re.sub(r"\W", "", find_support("[1]", passages)[0].sentence) == "1"


def test_an_answer_that_names_no_passage_has_the_sources_of_its_words() -> None:
    passages = [
        Passage("1", "Dogs are forbidden. The landlord, Clara Whitcombe, repairs the roof.", "lease.txt", 3),
        Passage("2", "北京的仓库由王芳负责。", "仓库.txt"),
        Passage("3", "Clara Novak plays the flute.", "club.txt"),
    ]

    def numbers(answer: str) -> list[int]:
        return [citation.n for citation in find_sources("Who repairs the roof?", answer, passages)]

    assert numbers("Clara Whitcombe") == [1]
    assert numbers("王芳") == [2]
    assert numbers("王芳负责北京的仓库。Clara Novak plays the flute.") == [2, 3]
    assert numbers("Clara Whitcombe [3]") == [3]  # what is named counts, and nothing else
    assert numbers("Somebody from the town hall will surely look after all that") == []
    assert numbers("See [9].") == numbers("") == []
    (source,) = find_sources("Who repairs the roof?", "Clara Whitcombe", passages)
    assert (source.source, source.page) == ("lease.txt", 3)
    assert source.quote == "The landlord, Clara Whitcombe, repairs the roof."
