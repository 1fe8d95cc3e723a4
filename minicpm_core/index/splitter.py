"""Cuts text into passages of whole sentences, for Chinese and English, without losing a character."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minicpm_core.index.words import CJK

CountTokens = Callable[[str], int]

_TITLES = (
    "mr mrs ms dr prof st sr jr gen sen rev hon capt lt col sgt vs fig figs eq approx dept inc ltd co corp".split()
)
_NUMBERED = (
    "no nos fig figs p pp vol vols art sec ch chap par ver v ext tel jan feb mar apr jun jul aug sep sept oct nov dec"
)
_BEFORE_NUMBER = frozenset(_NUMBERED.split())
_LATIN_CLOSERS = "\"')]”’»"
_END = re.compile(rf"[。！？；…]+[”’」』）》】〉]*|[.!?]+[{re.escape(_LATIN_CLOSERS)}]*(?=\s|$|[{CJK}])|\n")
_LIST_ITEM = re.compile(
    r"\s*(?:[-*+•·●▪◦‣]\s|\(?\d{1,3}[.)、．]|[(（]?[一二三四五六七八九十]{1,3}[)）、．]|[a-zA-Z][.)]\s|\||#{1,6}\s|>)"
)
_SENTENCE_END = re.compile(r"[。！？；…：.!?:;]\W*$")
_CLAUSE_END = re.compile(r"[，、：,;:]+[”’」』）\"')]*|——|[。！？；…]+")
_WORD_END = re.compile(r"\s+")
_MARKDOWN_HEADING = re.compile(r"\s*#{1,6}\s")
_BEFORE_LINE = re.compile(r"(?:\A|\n)[ \t\u3000]*\Z")
_AFTER_LINE = re.compile(r"[ \t\u3000]*\n")
_MOST_INDENT = 80
_HEADING_LENGTH = 60
_WRAPPED_LENGTH = 40


@dataclass(frozen=True)
class Span:
    """A piece of a text: `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True)
class _Unit:
    """A sentence, its length in tokens, whether it is a heading and whether it starts a paragraph."""

    start: int
    end: int
    tokens: int
    heading: bool
    opens: bool


def estimate_tokens(text: str) -> int:
    """Return a rough token count for embeddings without a tokenizer: 1 per CJK character, 1.3 per other word."""
    characters = len(re.findall(f"[{CJK}]", text))
    words = re.findall(rf"[^\W{CJK}]+", text)
    marks = len(re.findall(r"[^\w\s]", text))
    # A very long "word" (a URL, base64) is many tokens: about one per four characters.
    return characters + marks // 2 + math.ceil(sum(max(1.3, len(word) / 4) for word in words))


def split_text(
    text: str, *, chunk_size: int, chunk_overlap: int, count_tokens: CountTokens, by_line: bool = False
) -> list[Span]:
    """Return the passages of `text` in order; together they cover every character that is not white space.

    A passage is one or more whole sentences up to `chunk_size` tokens; only a longer sentence is cut: at commas, then
    at spaces, then between characters. A heading stays with the text below it where both fit, and a passage ends
    before a paragraph when it is half full, before a heading when it is a quarter full.

    Args:
        text: the text of a page or of a file.
        chunk_size: longest passage in tokens, as the sum over its sentences.
        chunk_overlap: most tokens repeated from the end of one passage at the start of the next, whole sentences only.
        count_tokens: length of a text in tokens.
        by_line: take lines, with their indentation, for sentences (code, rows of a table).
    """
    units = _units(text, chunk_size, count_tokens, by_line)
    spans: list[Span] = []
    current: list[_Unit] = []
    fresh = 0  # units of `current` that no earlier passage holds
    for n, unit in enumerate(units):
        size = sum(u.tokens for u in current)
        needed = _with_text_below(units, n, chunk_size)
        fits = size + needed <= chunk_size
        enough = chunk_size / 4 if unit.heading else chunk_size / 2
        full = unit.opens and not _only_headings(current) and size >= enough
        if fresh and (full or not fits):
            spans.append(Span(current[0].start, current[-1].end))
            current = [] if full else _overlap(current, chunk_overlap, chunk_size - needed)
            fresh = 0
        elif current and not fits:
            current = []
        current.append(unit)
        fresh += 1
    if fresh:
        spans.append(Span(current[0].start, current[-1].end))
    return spans


def _with_text_below(units: Sequence[_Unit], n: int, chunk_size: int) -> int:
    """Return the tokens of unit `n`, and for a heading those of what must follow it in the same passage."""
    total = units[n].tokens
    while units[n].heading and n + 1 < len(units) and total + units[n + 1].tokens <= chunk_size:
        n += 1
        total += units[n].tokens
    return total


def _only_headings(units: Sequence[_Unit]) -> bool:
    return all(unit.heading for unit in units)


def _overlap(units: Sequence[_Unit], chunk_overlap: int, room: int) -> list[_Unit]:
    kept: list[_Unit] = []
    total = 0
    for unit in reversed(units[1:]):
        total += unit.tokens
        if total > min(chunk_overlap, room):
            break
        kept.insert(0, unit)
    return kept


def _units(text: str, chunk_size: int, count_tokens: CountTokens, by_line: bool) -> list[_Unit]:
    units: list[_Unit] = []
    previous = 0
    for span in _lines(text) if by_line else sentences(text):
        piece = text[span.start : span.end]
        opens = not units or text.count("\n", previous, span.start) > 1
        heading = not by_line and _is_heading(text, span)
        opens = opens or (heading and bool(_MARKDOWN_HEADING.match(piece)))
        tokens = count_tokens(piece)
        if tokens <= chunk_size:
            units.append(_Unit(span.start, span.end, tokens, heading, opens))
        else:
            for n, cut in enumerate(_cut(text, span, chunk_size, count_tokens)):
                units.append(
                    _Unit(cut.start, cut.end, count_tokens(text[cut.start : cut.end]), False, opens and n == 0)
                )
        previous = span.end
    return units


def _is_heading(text: str, span: Span) -> bool:
    """Tell whether a sentence is a line of its own that reads like a title."""
    piece = text[span.start : span.end]
    if _MARKDOWN_HEADING.match(piece):
        return True
    short = len(piece) <= (_HEADING_LENGTH // 2 if re.search(f"[{CJK}]", piece) else _HEADING_LENGTH)
    if not short or "\n" in piece or _SENTENCE_END.search(piece) or _LIST_ITEM.match(piece):
        return False
    before = _BEFORE_LINE.search(text, max(0, span.start - _MOST_INDENT), span.start)
    return bool(before and _AFTER_LINE.match(text, span.end))


def sentences(text: str) -> list[Span]:
    """Return the sentences of `text` in order, without the white space around them."""
    found: list[Span] = []
    start = 0
    for end in _END.finditer(text):
        if _ends_sentence(text, start, end):
            start = _append(text, start, end.end(), found)
    _append(text, start, len(text), found)
    return found


def _lines(text: str) -> list[Span]:
    return [
        Span(line.start(), line.start() + len(line.group().rstrip())) for line in re.finditer(r"[^\n]*\S[^\n]*", text)
    ]


def _append(text: str, start: int, end: int, found: list[Span]) -> int:
    stop = end
    while start < stop and text[start].isspace():
        start += 1
    while stop > start and text[stop - 1].isspace():
        stop -= 1
    if stop > start:
        found.append(Span(start, stop))
    return end


def _ends_sentence(text: str, start: int, end: re.Match[str]) -> bool:
    mark = end.group()
    if mark == "\n":
        return _ends_line(text, start, end.start())
    if mark[0] != ".":
        return True
    if len(mark.rstrip(_LATIN_CLOSERS)) > 1 and end.end() < len(text) and not text[end.end()].isspace():
        return False  # "..." inside a word
    word = re.split(r"[\s(\"'“‘]", text[max(start, end.start() - 20) : end.start()])[-1].lower()
    following = text[end.end() : end.end() + 40].lstrip()
    if following[:1].islower() and "\n\n" not in text[end.end() : end.end() + 3]:
        return False
    if re.fullmatch(r"(?:[a-z]\.)*[a-z]", word) or word in _TITLES:
        return False
    if len(word) <= 3 and text[max(start, end.start() - 20) : end.start()].strip().isdigit():
        return False  # the number of a list item
    return not (word in _BEFORE_NUMBER and following[:1].isdigit())


def _ends_line(text: str, start: int, newline: int) -> bool:
    """Tell whether a line break ends a sentence; it does not inside a paragraph that was wrapped by hand."""
    line_start = text.rfind("\n", 0, newline) + 1
    line = text[line_start:newline].strip()
    following = text[newline + 1 : newline + 200].split("\n", 1)[0]
    if not line or not following.strip() or _LIST_ITEM.match(following) or _MARKDOWN_HEADING.match(line):
        return True
    width = len(line) + len(re.findall(f"[{CJK}]", line))
    first = following.lstrip()[0]
    wrapped = width >= _WRAPPED_LENGTH and not _SENTENCE_END.search(line)
    return not (wrapped and (first.islower() or bool(re.match(f"[{CJK}]", first))))


def _cut(text: str, span: Span, chunk_size: int, count_tokens: CountTokens) -> list[Span]:
    """Return a sentence in parts of at most `chunk_size` tokens: at clause marks, else at spaces, else anywhere."""
    for marks in (_CLAUSE_END, _WORD_END):
        ends = [end.end() for end in marks.finditer(text, span.start, span.end)]
        if not ends or ends == [span.end]:
            continue
        parts: list[Span] = []
        start = span.start
        for stop in [*ends, span.end]:
            start = _append(text, start, stop, parts)
        if len(parts) > 1:
            small = [s for p in parts for s in _cut_if_long(text, p, chunk_size, count_tokens)]
            return _pack(text, small, chunk_size, count_tokens)
    return _cut_characters(text, span, chunk_size, count_tokens)


def _cut_if_long(text: str, span: Span, chunk_size: int, count_tokens: CountTokens) -> list[Span]:
    fits = count_tokens(text[span.start : span.end]) <= chunk_size
    return [span] if fits else _cut(text, span, chunk_size, count_tokens)


def _pack(text: str, parts: Sequence[Span], chunk_size: int, count_tokens: CountTokens) -> list[Span]:
    packed: list[Span] = []
    size = 0
    for part in parts:
        tokens = count_tokens(text[part.start : part.end])
        if packed and size + tokens <= chunk_size:
            packed[-1] = Span(packed[-1].start, part.end)
            size += tokens
        else:
            packed.append(part)
            size = tokens
    return packed


def _cut_characters(text: str, span: Span, chunk_size: int, count_tokens: CountTokens) -> list[Span]:
    parts: list[Span] = []
    start = span.start
    while start < span.end:
        low, high = start + 1, min(span.end, start + 16 * chunk_size)
        while low < high:
            middle = (low + high + 1) // 2
            if count_tokens(text[start:middle]) <= chunk_size:
                low = middle
            else:
                high = middle - 1
        start = _append(text, start, low, parts)
    return parts
