"""How well an index is searched and questions over it are answered: questions and figures."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from minicpm_core.citations import CITATION, find_citations
from minicpm_core.rag import Language, Passage, RagSettings, detect_language, is_out_of_scope, is_refusal
from minicpm_core.support import find_support

Search = Callable[[str, int], Sequence[Passage]]
"""Returns the best passages for a question, at most so many, best first."""
DEPTH = 10
"""Passages that are looked at for the rank of the right one."""


@dataclass(frozen=True)
class Question:
    """A question and how its answer is recognised.

    Args:
        question: as it is asked.
        source: the file that answers it; None where none does, so that it must be refused.
        passage: text that the right passage contains.
        answer: text that a right answer contains; "" where that is not known.
        near: it must be refused although it is about what the documents are about.
    """

    question: str
    source: str | None = None
    passage: str = ""
    answer: str = ""
    near: bool = False

    @property
    def language(self) -> Language:
        """The question's language."""
        return detect_language(self.question)

    def is_right(self, passage: Passage) -> bool:
        """Tell whether a passage is the one that answers."""
        return passage.source == self.source and _fold(self.passage) in _fold(passage.text)


@dataclass(frozen=True)
class Retrieval:
    """How one way of searching did.

    Args:
        ranks: of the right passage, from 1, for each question; None where it is not among the first `DEPTH`.
        seconds: for all questions.
        characters: of the first three passages together, on average.
    """

    ranks: tuple[int | None, ...]
    seconds: float
    characters: float

    def hit(self, k: int) -> float:
        """Return the share of questions whose right passage is among the first `k`; NaN without questions."""
        return _share(rank is not None and rank <= k for rank in self.ranks)

    @property
    def mrr(self) -> float:
        """The mean reciprocal rank of the right passage, 0 where it was not found (Voorhees 1999, TREC-8)."""
        return _mean([1 / rank if rank else 0.0 for rank in self.ranks])


@dataclass(frozen=True)
class Answered:
    """A question, what was answered, and the passages that were given, in the order of their numbers.

    Args:
        answerability: what `minicpm_core.answerability` says of them; None where that was not asked.
    """

    question: Question
    answer: str
    passages: tuple[Passage, ...]
    seconds: float = 0.0
    answerability: float | None = None


@dataclass(frozen=True)
class AnswerFigures:
    """Counts over answers; a pair is (so many, of so many).

    Args:
        right: answerable questions whose answer contains what it must.
        citation_precision: citations that name a passage that answers; those of answers that should be refusals count
            as wrong.
        not_given: citations of numbers that no passage had.
        quotes_verified: quotes that stand in the passage they are from: a citation's, and texts in quotation marks.
        verbatim: sentences that stand in their passage as they are.
        refused: unanswerable questions that were refused.
        refused_near: those of them that are about what the documents are about.
        false_refusals: answerable questions that were refused.
        seconds: for all answers.
    """

    right: tuple[int, int]
    citation_precision: tuple[int, int]
    not_given: int
    quotes_verified: tuple[int, int]
    verbatim: tuple[int, int]
    refused: tuple[int, int]
    refused_near: tuple[int, int]
    false_refusals: tuple[int, int]
    seconds: float


def read_questions(file: str | Path) -> list[Question]:
    """Return the questions of a JSONL file: one object a line, with the fields of `Question`.

    Raises:
        ValueError: a line is no such object, or there is none; the message names the line.
        OSError: the file cannot be read.
    """
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 (byte {error.start}); save it as UTF-8") from error
    found = [_read(line, f"{path}, line {n}") for n, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise ValueError(
            f'{path} holds no questions; give a line such as {{"question": "...", "source": "a.pdf"}} each'
        )
    return found


def evaluate_search(search: Search, questions: Sequence[Question]) -> Retrieval:
    """Return the ranks of the right passages of the answerable questions.

    Args:
        search: is asked for `DEPTH` passages of each.
        questions: those that have no source are left out.
    """
    ranks: list[int | None] = []
    lengths: list[float] = []
    began = time.perf_counter()
    for question in questions:
        if question.source is None:
            continue
        found = search(question.question, DEPTH)
        ranks.append(next((n for n, passage in enumerate(found, start=1) if question.is_right(passage)), None))
        lengths.append(sum(len(passage.text) for passage in found[:3]))
    return Retrieval(tuple(ranks), time.perf_counter() - began, _mean(lengths))


def evaluate_answers(answers: Sequence[Answered], settings: RagSettings) -> AnswerFigures:
    """Return the figures of answers.

    Args:
        answers: as the model wrote them.
        settings: tell a refusal, and with `min_similarity` what is refused without the model.
    """
    said = [(given, _is_refused(given, settings)) for given in answers]
    answerable = [(given, refused) for given, refused in said if given.question.source is not None]
    unanswerable = [(given, refused) for given, refused in said if given.question.source is None]
    checked = [(given, refused) for given, refused in answerable if given.question.answer]
    told = [given for given, refused in said if not refused]
    marks = [(given, n) for given in told for n in _numbers(given.answer)]
    cited = [(given, given.passages[n - 1]) for given, n in marks if 1 <= n <= len(given.passages)]
    support = [sentence for given in told for sentence in find_support(given.answer, given.passages)]
    return AnswerFigures(
        right=_count(not no and _fold(g.question.answer) in _fold(g.answer) for g, no in checked),
        citation_precision=_count(given.question.is_right(passage) for given, passage in cited),
        not_given=len(marks) - len(cited),
        quotes_verified=_count(verified for given in told for verified in _verify_quotes(given)),
        verbatim=_count(sentence.verbatim for sentence in support),
        refused=_count(refused for _, refused in unanswerable),
        refused_near=_count(refused for given, refused in unanswerable if given.question.near),
        false_refusals=_count(refused for _, refused in answerable),
        seconds=sum(given.seconds for given in answers),
    )


def _read(line: str, place: str) -> Question:
    names = [field.name for field in fields(Question)]
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.keys() - set(names) or "question" not in values:
        given = sorted(values) if isinstance(values, dict) else line[:40]
        raise ValueError(f"{place} has {given}; accepted: an object with question, and {', '.join(names[1:])}")
    for name, value in values.items():
        kind = bool if name == "near" else str
        if not isinstance(value, kind) and not (name == "source" and value is None):
            raise ValueError(f"{place}: {name} is {value!r}; accepted is {'true or false' if kind is bool else 'text'}")
    found = Question(**values)
    if not found.question.strip():
        raise ValueError(f"{place}: the question is empty")
    if found.source is None and (found.passage or found.answer):
        raise ValueError(f"{place} has a passage or an answer but no source; leave them out, or name the file")
    return found


def _is_refused(given: Answered, settings: RagSettings) -> bool:
    return is_refusal(given.answer, settings) or is_out_of_scope(given.passages, settings)


def _numbers(answer: str) -> list[int]:
    return list(dict.fromkeys(int(a or b) for a, b in CITATION.findall(answer)))


def _verify_quotes(given: Answered) -> list[bool]:
    texts = [_fold(passage.text) for passage in given.passages]
    quotes = find_citations(given.question.question, given.answer, given.passages)
    unfound = [quote for sentence in find_support(given.answer, given.passages) for quote in sentence.unfound_quotes]
    return [_fold(citation.quote) in texts[citation.n - 1] for citation in quotes] + [False] * len(unfound)


def _fold(text: str) -> str:
    return " ".join(text.split())


def _count(flags: Iterable[bool]) -> tuple[int, int]:
    found = list(flags)
    return sum(found), len(found)


def _share(flags: Iterable[bool]) -> float:
    n, of = _count(flags)
    return n / of if of else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
