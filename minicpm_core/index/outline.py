"""Pages and their headings: where these stand in the text, and under which of them a passage is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Noncharacters of Unicode, which no text holds; readers put them around a heading while they write a page.
_OPENS, _CLOSES = "\ufdd0", "\ufdd1"
_MARKED = re.compile(f"{_OPENS}([1-9])([^{_OPENS}{_CLOSES}]*){_CLOSES}")
_MARKS = re.compile(f"{_OPENS}[1-9]|[{_OPENS}{_CLOSES}]")
_ATX = re.compile(r"[ ]{0,3}(#{1,6})[ \t]+(\S.*?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"[ ]{0,3}(```|~~~)")
_NUMERAL = "[一二三四五六七八九十百千零〇\\d]{1,6}"
_CHAPTER = re.compile(
    rf"(?P<upper>第{_NUMERAL}[编篇部卷]|part\s+(?:\d+|[ivx]+)\b)|(?P<chapter>第{_NUMERAL}章|chapter\s+(?:\d+|[ivx]+)\b)"
    rf"|(?P<section>第{_NUMERAL}节|section\s+\d+\b)",
    re.IGNORECASE,
)
_CHAPTER_LENGTH = 60
_NOT_TITLE = re.compile(r"[。，；,;!?！？]|\.{3}|…|·{3}|\S\s*\d+$")  # a sentence, or a line of a table of contents
_CODE = re.compile(
    r"(?P<indent>[ \t]*)(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub|unsafe)"
    r"(?:\([a-z]+\))?[ \t]+)*(?:class|interface|struct|enum|trait|impl|module|namespace|def|func|function|fn|type)\b"
    r"[ \t*]+(?P<name>[^\W\d]\w*)"
)
_TAB = 4


@dataclass(frozen=True)
class Heading:
    """A heading that starts at the character `start` of a page's text; level 1 is the highest."""

    start: int
    level: int
    text: str


@dataclass(frozen=True)
class Page:
    """The text of a page.

    Args:
        number: counts from 1; None for a file without pages.
        text: what passages are cut from; their offsets count its characters.
        headings: in the order of their places.
        by_line: lines belong together (code, rows of a table), and passages are made of whole ones.
        member: the file inside an archive that the page is of.
    """

    number: int | None
    text: str
    headings: tuple[Heading, ...] = ()
    by_line: bool = False
    member: str | None = None


def mark_heading(level: int, text: str) -> str:
    """Return a heading as readers write it, for `take_headings` to find."""
    return open_heading(level) + clear_marks(text) + close_heading()


def open_heading(level: int) -> str:
    """Return the mark before a heading."""
    return f"{_OPENS}{min(max(level, 1), 9)}"


def close_heading() -> str:
    """Return the mark behind a heading."""
    return _CLOSES


def clear_marks(text: str) -> str:
    """Return a document's own text without the characters that mark headings."""
    return text.replace(_OPENS, "").replace(_CLOSES, "")


def take_headings(marked: str) -> tuple[str, tuple[Heading, ...]]:
    """Return the text without marks, and the headings with the places where they now stand."""
    parts: list[str] = []
    headings: list[Heading] = []
    length = end = 0
    for found in _MARKED.finditer(marked):
        before = _MARKS.sub("", marked[end : found.start()])
        title = " ".join(found[2].split())
        parts += [before, title]
        length += len(before)
        if title:
            headings.append(Heading(length, int(found[1]), title))
        length += len(title)
        end = found.end()
    parts.append(_MARKS.sub("", marked[end:]))
    return "".join(parts), tuple(headings)


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """Return the lines that begin with # to ######, outside of fenced code."""
    headings = []
    fence = ""
    for start, line in _lines(text):
        opened = _FENCE.match(line)
        if opened and fence in ("", opened[1]):
            fence = "" if fence else opened[1]
        elif not fence and (found := _ATX.match(line)):
            headings.append(Heading(start, len(found[1]), found[2]))
    return tuple(headings)


def chapter_headings(text: str) -> tuple[Heading, ...]:
    """Return the lines that name a part, a chapter or a section, in Chinese or English."""
    headings = []
    for start, line in _lines(text):
        title = line.strip()
        found = _CHAPTER.match(title) if len(title) <= _CHAPTER_LENGTH else None
        if found and not _NOT_TITLE.search(title[found.end() :]):
            level = 1 if found["upper"] else 2 if found["chapter"] else 3
            headings.append(Heading(start, level, " ".join(title.split())))
    return tuple(headings)


def code_headings(text: str) -> tuple[Heading, ...]:
    """Return the lines that define a class or a function, deeper by their indentation."""
    headings = []
    for start, line in _lines(text):
        if found := _CODE.match(line):
            indent = len(found["indent"].expandtabs(_TAB))
            headings.append(Heading(start, min(1 + indent // 2, 9), found["name"]))
    return tuple(headings)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1


class Outline:
    """Tells the headings above a place, over the pages of a file in their order."""

    def __init__(self) -> None:
        self._carried: list[Heading] = []  # open at the end of the pages before
        self._headings: Sequence[Heading] = ()
        self._text = ""

    def turn(self, text: str, headings: Sequence[Heading]) -> None:
        """Go on to the next page."""
        self._carried = self._above(len(self._text) + 1)
        self._text, self._headings = text, headings

    def at(self, start: int) -> tuple[str, ...]:
        """Return the headings above the passage that starts at `start`, highest first, with those it begins with."""
        place = start
        for heading in self._headings:
            if heading.start >= place:
                if self._text[place : heading.start].strip():
                    break
                end = self._text.find("\n", heading.start)
                place = end + 1 if end >= 0 else len(self._text) + 1
        return tuple(heading.text for heading in self._above(place))

    def _above(self, place: int) -> list[Heading]:
        """Return the headings that begin before `place` and are not over there."""
        stack = list(self._carried)
        for heading in self._headings:
            if heading.start >= place:
                break
            while stack and stack[-1].level >= heading.level:
                stack.pop()
            stack.append(heading)
        return stack
