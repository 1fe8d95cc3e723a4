"""Whole sentences, headings with their text, and not one character lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpm_core.index.splitter import estimate_tokens, sentences, split_text

_PIECES = st.sampled_from(
    ["The cat sat. ", "Mr. Smith paid 3.5 pounds! ", "# Title\n", "\n\n", "\n", "合同到期。", "他说：“好！”", "，",
     "、", "1. item\n", "- ", "……", "U.S. army", "\u3000", "\t", "是的；", "。", '"',
     "a.b.c ", "\U00020000", "x" * 40, "word "]
)  # fmt: skip
_TEXTS = st.one_of(st.lists(_PIECES, max_size=60).map("".join), st.text(max_size=200))


def split(text: str, size: int, overlap: int = 0) -> list[str]:
    spans = split_text(text, chunk_size=size, chunk_overlap=overlap, count_tokens=estimate_tokens)
    return [text[s.start : s.end] for s in spans]


@settings(max_examples=60, deadline=None)
@given(text=_TEXTS, size=st.integers(8, 64), share=st.floats(0, 0.9))
def test_no_text_is_lost(text: str, size: int, share: float) -> None:
    spans = split_text(text, chunk_size=size, chunk_overlap=int(size * share), count_tokens=estimate_tokens)
    covered = set[int]()
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        covered.update(range(span.start, span.end))
    assert [n for n, c in enumerate(text) if not c.isspace() and n not in covered] == []
    assert [s.start for s in spans] == sorted(s.start for s in spans)


@settings(max_examples=40, deadline=None)
@given(text=_TEXTS, size=st.integers(8, 64))
def test_passages_keep_to_the_size(text: str, size: int) -> None:
    # The size is the sum over the sentences; the estimate rounds each of them up by less than one token.
    for chunk in split(text, size):
        assert estimate_tokens(chunk) <= size + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("押金两个月。租期一年！好吗？是；对…", ["押金两个月。", "租期一年！", "好吗？", "是；", "对…"]),
        ("他说：“可以。”然后走了。", ["他说：“可以。”", "然后走了。"]),
        ("「行。」『好。』完", ["「行。」", "『好。』", "完"]),
        ("Mr. J. R. Hale paid $3.50. He left at 5 p.m. on", ["Mr. J. R. Hale paid $3.50.", "He left at 5 p.m. on"]),
        ("See No. 5 and Fig. 2. Done! Why? (Yes.) End", ["See No. 5 and Fig. 2.", "Done!", "Why?", "(Yes.)", "End"]),
        ("He said no. She agreed.", ["He said no.", "She agreed."]),
        ("Use e.g. water, approx. two cups.", ["Use e.g. water, approx. two cups."]),
        ("1. Open the lid.\n2. Press start.", ["1. Open the lid.", "2. Press start."]),
        ("- red\n- green", ["- red", "- green"]),
        ("A line that was wrapped by hand in the middle of\na sentence. Next.",
         ["A line that was wrapped by hand in the middle of\na sentence.", "Next."]),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[s.start : s.end] for s in sentences(text)] == expected


def test_sentences_are_packed_up_to_the_size() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten."
    assert split(text, 7) == ["One two three.", "Four five six.", "Seven eight nine. Ten."]
    assert split(text, 10) == ["One two three. Four five six.", "Seven eight nine. Ten."]


def test_overlap_repeats_whole_sentences() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten one two."
    assert split(text, 10, 5) == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine.",
        "Seven eight nine. Ten one two.",
    ]


def test_a_heading_stays_with_the_text_below() -> None:
    text = "The first part has nine or ten words.\n\n## Warranty\nTwo years from the date of sale.\n\nService\nCall us."
    chunks = split(text, 16)
    assert chunks[1] == "## Warranty\nTwo years from the date of sale."
    assert chunks[2] == "Service\nCall us."


def test_a_long_sentence_is_cut_at_commas_then_spaces_then_anywhere() -> None:
    assert split("甲乙丙丁戊，己庚辛壬癸，子丑寅卯辰", 8) == ["甲乙丙丁戊，", "己庚辛壬癸，", "子丑寅卯辰"]
    assert split("one two three four five six seven eight", 8) == ["one two three four", "five six seven eight"]
    chunks = split("z" * 100, 8)
    assert "".join(chunks) == "z" * 100
    assert len(chunks) == 4
