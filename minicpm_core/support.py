"""How far an answer rests on its passages, sentence by sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from minicpm_core.citations import CITATION, Citation, find_citations
from minicpm_core.index.splitter import sentences
from minicpm_core.index.words import coverage, passage_words, question_words
from minicpm_core.rag import Passage

_QUOTED = re.compile(r"\"([^\"]{3,})\"|“([^”]{3,})”|「([^」]{2,})」|『([^』]{2,})』|«([^»]{3,})»")

_MARK = re.compile(rf"\s*(?:{CITATION.pattern})")
_RESTS = 0.5
"""Share of a sentence's words that a passage must hold to be its source."""


@dataclass(frozen=True)
class Support:
    """What a sentence of an answer rests on.

    Args:
        sentence: as the answer has it, citation marks included.
        n: the passage, from 1, that holds most of its words: one of those that it cites, of all where it cites none.
            None where no passage was given.
        share: share of its words that stand in that passage, 0 to 1.
        verbatim: whether it stands in that passage as it is, apart from white space.
        unfound_quotes: texts in quotation marks that stand in none of the passages.
    """

    sentence: str
    n: int | None
    share: float
    verbatim: bool
    unfound_quotes: tuple[str, ...] = ()


def find_sources(question: str, answer: str, passages: Sequence[Passage]) -> list[Citation]:
    """Return the passages that `answer` names; where it names none, those that its sentences rest on.

    Small models forget to cite. A sentence rests on a passage that holds at least half of its words; a sentence that
    none holds so much of has no source.

    Args:
        question: helps to choose the quotes.
        answer: no refusal.
        passages: in the order of their numbers.
    """
    if named := find_citations(question, answer, passages):
        return named
    rests = [sentence for sentence in find_support(answer, passages) if sentence.share >= _RESTS]
    numbers = dict.fromkeys(sentence.n for sentence in rests if sentence.n is not None)
    return find_citations(question, answer + "".join(f" [{n}]" for n in numbers), passages)


def find_support(answer: str, passages: Sequence[Passage]) -> list[Support]:
    """Return the support of each sentence of `answer`; a mark alone, such as "[1]", belongs to the sentence before it.

    Args:
        answer: with its `[n]` marks.
        passages: in the order of their numbers.
    """
    texts = [_fold(passage.text) for passage in passages]
    return [_support(sentence, texts) for sentence in _sentences(answer)]


def _sentences(answer: str) -> list[str]:
    found: list[tuple[int, int]] = []
    for span in sentences(answer):
        bare = CITATION.sub("", answer[span.start : span.end]).strip(" .。!！?？,，;；")
        start = span.start if bare or not found else found.pop()[0]
        found.append((start, span.end))
    return [answer[start:end] for start, end in found]


def _support(sentence: str, texts: Sequence[str]) -> Support:
    bare = _fold(_MARK.sub("", sentence))
    words = question_words(bare)
    cited = [int(a or b) for a, b in CITATION.findall(sentence)]
    numbers = [n for n in dict.fromkeys(cited) if 1 <= n <= len(texts)] or list(range(1, len(texts) + 1))
    shares = {n: coverage(words, passage_words(texts[n - 1])) for n in numbers}
    best = max(numbers, key=lambda n: (bare in texts[n - 1], shares[n]), default=None)
    quoted = [next(filter(None, found)) for found in _QUOTED.findall(bare)]
    unfound = tuple(text for text in quoted if not any(_fold(text) in whole for whole in texts))
    if best is None:
        return Support(sentence, None, 0.0, False, unfound)
    return Support(sentence, best, shares[best], bare in texts[best - 1], unfound)


def _fold(text: str) -> str:
    return " ".join(text.split())
