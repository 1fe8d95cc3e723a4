"""Which passages an answer names, and the sentences in them that it rests on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from minicpm_core.index.splitter import sentences
from minicpm_core.index.words import coverage, passage_words, question_words
from minicpm_core.rag import Passage

CITATION = re.compile(r"\[(\d{1,3})\]|【(\d{1,3})】")
"""A mark that names a passage: [1], or 【1】 as some models write it."""
_SAID = 0.5
"""Share of a sentence's characters that must stand in the answer for the sentence to count as said."""


@dataclass(frozen=True)
class Citation:
    """A passage that an answer names: `[n]`, its file, its page (from 1, None where there are none) and a quote."""

    n: int
    source: str
    page: int | None
    quote: str


def find_citations(question: str, answer: str, passages: Sequence[Passage]) -> list[Citation]:
    """Return the passages that `answer` names as `[n]`, in order of first mention; numbers not given do not count."""
    numbers = dict.fromkeys(int(a or b) for a, b in CITATION.findall(answer))
    return [
        Citation(n, passages[n - 1].source, passages[n - 1].page, find_quote(question, answer, passages[n - 1].text))
        for n in numbers
        if 1 <= n <= len(passages)
    ]


def find_quote(question: str, answer: str, text: str) -> str:
    """Return the sentence of `text`, verbatim, that the answer rests on.

    Of the sentences that the answer says again, it is the one with most words of the question; of several, or where
    the answer says none again, the one that shares most with the answer.
    """
    said = CITATION.sub("", answer)
    asked = question_words(question)

    def rank(sentence: str) -> tuple[bool, float, int]:
        shared = _shared(said, sentence)
        repeated = shared >= _SAID * len(sentence)
        return repeated, coverage(asked, passage_words(sentence)) if repeated else 0.0, shared

    return max((text[span.start : span.end] for span in sentences(text)), key=rank, default=text.strip())


def _shared(answer: str, sentence: str) -> int:
    blocks = SequenceMatcher(None, answer, sentence, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks if block.size > 1)
