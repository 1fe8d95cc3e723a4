"""Questions on written documents: passages as an index cuts them, among others of the document and of like ones."""

from __future__ import annotations

import re
from functools import cache
from random import Random
from typing import Literal

from minicpm_core.rag import Language, write_line
from minicpm_core.yes_no import YES_NO_PROMPTS
from tools.demo_model import facts_en, facts_zh, lexicon_en, lexicon_zh
from tools.demo_model.assembling import assemble
from tools.demo_model.documents import Document, Line, load_documents
from tools.demo_model.encoding import Example

SAME_QUESTION = 0.5  # share of common words above which two questions may ask for the same
_WORDS = {"en": re.compile(r"[a-z]{3,}"), "zh": re.compile(r"(?=([\u3400-\u9fff]{2}))")}
_PLAIN = frozenset(
    "what who whom whose when where which how why does did has have are the and for with from can may must will".split()
)
_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()
_DIGITS = "零一二三四五六七八九"


Kind = Literal["own words", "other words", "unanswered", "removed"]
KINDS: tuple[Kind, ...] = ("own words", "other words", "unanswered", "removed")
_SHARES = (0.36, 0.36, 0.14, 0.14)


def ask_document(rng: Random, progress: float, language: Language) -> Example:
    """Ask a question of a document, in its words or in others, or one that its passages do not answer."""
    kind = rng.choices(KINDS, _SHARES)[0]
    most = rng.choice((0, 1, 2, 3, 4, 4, 4)) if progress > 0.05 else 2
    question, right, others = draw_question(rng, language, kind, most=most, progress=progress)
    return assemble(rng, question, right, others, language, progress)


def ask_yes_no(rng: Random, progress: float, language: Language) -> Example:
    """Ask whether a passage has the answer, as the model is asked when it reranks."""
    kind: Kind = rng.choice(("own words", "other words"))
    question, right, others = draw_question(rng, language, kind, most=2, progress=progress)
    passage = rng.choice(others) if others and rng.random() < 0.55 else right
    yes, no = ("yes", "no") if language == "en" else ("是", "否")
    asked = YES_NO_PROMPTS[language].format(query=question, document=passage)
    answer, messages = (yes if passage == right else no), [{"role": "user", "content": asked}]
    return Example(question, answer, messages=messages, enable_thinking=False)


def draw_question(
    rng: Random, language: Language, kind: Kind, *, most: int = 4, progress: float = 1.0, held_out: bool = False
) -> tuple[str, str | None, list[str]]:
    """Return a question of `kind`, the passage that answers it, and other passages.

    Args:
        rng: source of the draws.
        language: of question and passages.
        kind: "own words" and "other words" than the document's; "unanswered": the document stands there and does not
            tell; "removed": the passage that tells is not there.
        most: number of other passages; at least one where no passage answers.
        progress: of the training, 0 to 1; short passages at first.
        held_out: take the documents that are not trained on.
    """
    documents = load_documents(language, held_out=held_out)
    document = rng.choice([d for d in documents if d.unanswered] if kind == "unanswered" else documents)
    line = rng.choice(document.lines)
    filled = _Values(rng, language)
    passages = _cut(rng, document, filled, progress)
    at = next(n for n, (lines, _) in enumerate(passages) if line in lines)
    others = [text for n, (_, text) in enumerate(passages) if n != at]
    rng.shuffle(others)
    right: str | None = None
    if kind == "unanswered":
        question = filled(rng.choice(document.unanswered))
        others.insert(rng.randint(0, min(2, len(others))), passages[at][1])
    else:
        question = filled(
            rng.choice(line.other if kind == "other words" else line.own + line.other * (kind == "removed"))
        )
        right = None if kind == "removed" else passages[at][1]
    least = 1 if right is None else 0
    most = max(least, most)
    shown = others[: rng.randint(least, most)] if rng.random() < 0.8 else []
    for other, stranger in _like(rng, documents, question, document, language)[: most - len(shown)]:
        lines, text = next(p for p in _cut(rng, stranger, _Values(rng, language), progress) if other in p[0])
        if not any(_alike(question, asked, language) for one in lines for asked in (*one.own, *one.other)):
            shown.append(text)
    if right is None and not shown:
        shown = others[:1]
    rng.shuffle(shown)
    return question, right, shown


class _Values:
    """Fills slots; the same slot gets the same value in a whole document."""

    def __init__(self, rng: Random, language: Language) -> None:
        self.rng, self.language = rng, language
        self.known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        filled = re.sub(r"\{([a-z]+\d?)\}", lambda match: self._value(match[1]), text)
        return filled[:1].upper() + filled[1:]

    def _value(self, slot: str) -> str:
        if slot not in self.known:
            self.known[slot] = draw_value(self.rng, slot.rstrip("0123456789"), self.language)
        return self.known[slot]


def draw_value(rng: Random, slot: str, language: Language) -> str:
    """Return a value for a slot of `documents.SLOTS`."""
    if language == "en":
        if slot == "n":
            few = rng.choice((rng.randint(2, 30), rng.randint(2, 99), rng.randint(100, 900)))
            return rng.choice(_NUMERALS[2:]) if rng.random() < 0.35 else str(few)
        if slot == "name":
            return facts_en.organisation(rng) if rng.random() < 0.4 else lexicon_en.invent_name(rng)
        return facts_en.fill(f"{{{slot}}}", {}, rng)
    if slot == "n":
        number = rng.choice((rng.randint(2, 30), rng.randint(2, 99), rng.randint(100, 2000)))
        return _numeral(number) if rng.random() < 0.5 else str(number)
    if slot == "price":
        number = rng.choice((rng.randint(2, 99), rng.randint(1, 99) * 10, rng.randint(1, 90) * 100))
        return (_numeral(number) if rng.random() < 0.5 else str(number)) + "元"
    if slot == "name":
        return lexicon_zh.invent_brand(rng)
    return facts_zh.fill(f"{{{slot}}}", {}, rng)


def _numeral(number: int) -> str:
    """Return a number below 10,000 in Chinese numerals."""
    text, pending = "", False
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // power % 10
        if digit:
            text += ("零" if pending and text else "") + _DIGITS[digit] + unit
        pending = digit == 0
    return text[1:] if text.startswith("一十") else text


Passage = tuple[list[Line], str]


def _cut(rng: Random, document: Document, filled: _Values, progress: float) -> list[Passage]:
    """Return the document in passages of one to four sentences, some behind a heading."""
    gap = " " if filled.language == "en" else ""
    passages: list[Passage] = []
    rest = list(document.lines)
    while rest:
        size = rng.choice((1, 1, 2) if progress < 0.2 else (1, 1, 2, 2, 3, 3, 4))
        part, rest = rest[:size], rest[size:]
        text = gap.join(filled(line.sentence) for line in part)
        if not passages and rng.random() < 0.6:
            title = filled(document.title)
            text = rng.choice(("# {}\n", "{}\n", "{}\n\n")).format(rng.choice((title, title, title.upper()))) + text
        elif rng.random() < 0.3:
            text = rng.choice(("## {}\n", "{}. ", "{}\n", "{}: ")).format(_heading(rng, part[0], filled)) + text
        passages.append((part, write_line(text)))
    return passages


def _heading(rng: Random, line: Line, filled: _Values) -> str:
    """Return a word of a sentence, as headings are."""
    plain = re.sub(r"\{\w+\}", " ", line.sentence)
    words = re.findall(r"[A-Za-z]{5,}|[\u3400-\u9fff]{2,4}", plain)
    return rng.choice(words).capitalize() if words else filled("{name}")


def _words(text: str, language: Language) -> frozenset[str]:
    return frozenset(_WORDS[language].findall(text.lower())) - _PLAIN


def _alike(one: str, other: str, language: Language) -> bool:
    a, b = _words(one, language), _words(other, language)
    return len(a & b) > SAME_QUESTION * min(len(a), len(b)) if a and b else False


@cache
def _lines(documents: tuple[Document, ...], language: Language) -> list[tuple[frozenset[str], Line, Document]]:
    return [(_words(line.sentence, language), line, d) for d in documents for line in d.lines]


def _like(
    rng: Random, documents: tuple[Document, ...], question: str, document: Document, language: Language
) -> list[tuple[Line, Document]]:
    """Return lines of other documents, those that share most words with the question first; some are random."""
    words = _words(question, language)
    drawn = rng.choices(_lines(documents, language), k=rng.choice((4, 40, 120)))
    found = sorted((one for one in drawn if one[2] is not document), key=lambda one: -len(words & one[0]))
    return [(line, stranger) for _, line, stranger in found[:4]]
