"""The rules that both frameworks share: prompts, refusals, citations, settings."""

from __future__ import annotations

import pytest

from minicpm_core.citations import Citation, find_citations, find_quote
from minicpm_core.rag import (
    REFUSALS,
    SYSTEM_PROMPTS,
    Passage,
    RagSettings,
    RefusalLanguage,
    build_messages,
    describe_dropped,
    detect_language,
    fit_passages,
    is_out_of_scope,
    is_refusal,
    prompt_room,
)

LAMP = "Care and warranty\nThe lamp is waterproof. The warranty lasts five years. Dr. Ohm made it for 3.50 EUR."
DEPOT = "仓库手册\n北京仓库由王芳负责。冷藏室的温度保持在零下十八度。"
PASSAGES = [Passage("a", LAMP, "lamp.pdf", 2), Passage("b", DEPOT, "仓库.txt")]


def test_the_prompt_is_in_the_language_of_the_question() -> None:
    assert build_messages("  How long? ", ["one\n two", "three"]) == [
        {"role": "system", "content": SYSTEM_PROMPTS["en"]},
        {"role": "user", "content": "[1] one two\n[2] three\n\nQuestion: How long?"},
    ]
    assert build_messages("多久？", ["一"])[1]["content"] == "[1] 一\n\n问题：多久？"
    assert build_messages("多久？", ["一"], system_prompts={"en": "x", "zh": "规则"})[0]["content"] == "规则"
    assert [detect_language(text) for text in ("plain", "with 汉 in it")] == ["en", "zh"]


def test_citations_name_passages_that_were_given_in_order_of_mention() -> None:
    answer = "[2] 北京仓库由王芳负责。 See [1], [7], [0] and [2]: The warranty lasts five years."
    assert find_citations("warranty?", answer, PASSAGES) == [
        Citation(2, "仓库.txt", None, "北京仓库由王芳负责。"),
        Citation(1, "lamp.pdf", 2, "The warranty lasts five years."),
    ]
    assert find_citations("warranty?", "no number at all", PASSAGES) == []


@pytest.mark.parametrize(
    ("question", "answer", "quote"),
    [
        ("How long does the warranty last?", f"[1] {LAMP}", "The warranty lasts five years."),
        ("What does it cost?", "It costs 3.50 EUR [1].", "Dr. Ohm made it for 3.50 EUR."),
        ("Is it waterproof?", "[1] The lamp is waterproof.", "The lamp is waterproof."),
    ],
)
def test_the_quote_is_the_sentence_that_the_answer_rests_on(question: str, answer: str, quote: str) -> None:
    assert find_quote(question, answer, LAMP) == quote
    assert quote in LAMP


def test_refusals_are_recognised_in_both_languages() -> None:
    settings = RagSettings()
    assert all(is_refusal(f" {text.upper()} ", settings) for text in REFUSALS.values())
    assert not is_refusal("The documents do not say much about rent, but [1] does.", settings)
    assert is_refusal("Weiß nicht", RagSettings(refusals={"en": "Weiß nicht.", "zh": "不知道。"}))


def test_the_model_is_not_asked_when_nothing_is_near() -> None:
    strict = RagSettings(min_similarity=0.5, min_coverage=0.5)
    far = Passage("a", "x", "f", similarity=0.3, coverage=0.2)
    assert is_out_of_scope([], RagSettings())
    assert not is_out_of_scope([far], RagSettings())
    assert is_out_of_scope([far], strict)
    assert not is_out_of_scope([far, Passage("b", "x", "f", similarity=0.6)], strict)
    assert not is_out_of_scope([far, Passage("b", "x", "f", coverage=0.5)], strict)


def test_the_lowest_ranked_passages_are_left_out_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    passages = [Passage(str(n), "word " * 10, "f") for n in range(4)]

    def count(messages: list[dict[str, str]]) -> int:
        return messages[1]["content"].count("word")

    assert fit_passages("q", passages, RagSettings(), room=40, count_tokens=count) == passages
    assert caplog.text == ""
    assert fit_passages("q", passages, RagSettings(), room=29, count_tokens=count) == passages[:2]
    assert "2 of 4 passages left out" in caplog.text
    assert describe_dropped(passages, 2) == [{"id": n, "source": "f", "page": None} for n in ("2", "3")]
    assert fit_passages("q", passages, RagSettings(), room=1, count_tokens=count) == passages[:1]
    assert (prompt_room(4000, None), prompt_room(4000, 100), prompt_room(4000, 3000)) == (3000, 3900, 3000)


def test_settings_are_stored_and_checked() -> None:
    settings = RagSettings.demo()
    assert RagSettings.from_dict(settings.to_dict()) == settings
    for values, message in [
        ({"chunk_size": 4}, "chunk_size is 4"),
        ({"chunk_overlap": 256}, "chunk_overlap is 256"),
        ({"k": 0}, "k is 0"),
        ({"follow_up": "guess"}, "follow_up is 'guess'"),
    ]:
        with pytest.raises(ValueError, match=message):
            RagSettings(**values)


def test_a_refusal_is_worded_in_the_language_of_the_question() -> None:
    settings = RagSettings()
    for question, said, shown in (
        ("Who owns it?", ["文档中", "没有", "提到。"], [""] * 3 + ["The documents do not say."]),
        ("谁拥有它？", ["The docu", "ments do not say."], ["", "", "文档中没有提到。"]),
        ("Who owns it?", ["The ", "documents do not say."], ["The ", "documents do not say.", ""]),
        ("Who owns it?", ["文档", "管理员"], ["", "文档管理员", ""]),
        ("Who owns it?", ["[1] It", " is 文档"], ["[1] It", " is 文档", ""]),
        ("Who owns it?", ["文档"], ["", "文档"]),
        ("Who owns it?", [], [""]),
    ):
        wording = RefusalLanguage(question, settings)
        assert [*(wording.push(piece) for piece in said), wording.flush()] == shown
