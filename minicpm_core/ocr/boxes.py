"""Texts with their places: read from what a model writes, joined to lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Size = tuple[int, int]
"""(width, height) of a picture in pixels."""

SCALE = 1000
"""Models tell places in thousandths of the picture's width and height."""
_REF = re.compile(r"<ref>")
_COORDINATES = re.compile(
    r"\s*(?:<box>(?P<tagged>[^<]*)</box>"
    r"|(?P<bare>\[\s*\[[^<\n]*?\]\s*\]|\[[\d\s.,，-]*\]|\([\d\s.,，-]*\)\s*[,，]?\s*\([\d\s.,，-]*\)))"
)
_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")
_NO_NUMBERS = re.compile(r"[^\d.,，\s\[\]()-]")


@dataclass(frozen=True)
class TextBox:
    """A piece of text and where it stands, in pixels of the upright picture; right and bottom are just outside it."""

    text: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class BadBox:
    """What looks like a box and is none: as it was written, and what is wrong with it."""

    written: str
    reason: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.written!r}"


def parse_boxes(answer: str, size: Size) -> tuple[list[TextBox], list[BadBox]]:
    """Return the texts and places that a model wrote, in its order, and what could not be read.

    Accepted are `<ref>text</ref>` with one or more boxes behind it, `<box>x1 y1 x2 y2</box>` or bracketed with or
    without the tag (`[[x1,y1,x2,y2]]`, `[x1,y1,x2,y2]`, `(x1,y1),(x2,y2)`); `<ref>text<box>x1</box><box>y1</box>
    <box>x2</box><box>y2</box></ref>`; and lines of text with such boxes at their end. Numbers are 0 to 1000, the upper
    left corner first.

    Args:
        answer: the model's answer.
        size: of the upright picture.
    """
    boxes: list[TextBox] = []
    bad: list[BadBox] = []
    for written, text, contents, wrong in _find_items(answer):
        places: list[tuple[float, ...]] = []
        reason = wrong
        if not reason:
            places, reason = _read_places(contents)
        if reason:
            bad.append(BadBox(written.strip(), reason))
        boxes += [TextBox(text, *_to_pixels(place, size)) for place in places]
    if answer.strip() and not boxes and not bad:
        bad.append(BadBox(answer.strip()[:200], "no box in the answer"))
    return boxes, bad


Item = tuple[str, str, list[str], str]
"""As written, the text, the insides of its boxes, what is wrong ("" where nothing is)."""


def _find_items(answer: str) -> Iterator[Item]:
    starts = [match.start() for match in _REF.finditer(answer)]
    yield from _read_lines(answer[: starts[0]] if starts else answer)
    for start, end in pairwise([*starts, len(answer)]):
        piece = answer[start:end]
        inside = piece[len("<ref>") :]
        ends = [at for mark in ("</ref>", "<box>") if (at := inside.find(mark)) >= 0]
        if not ends:
            yield piece, "", [], "a text that does not end"
            continue
        text, rest = inside[: min(ends)].strip(), inside[min(ends) :]
        closed = rest.startswith("</ref>")
        contents, rest = _take_coordinates(rest.removeprefix("</ref>"))
        if not closed and rest.lstrip().startswith("</ref>"):
            closed, rest = True, rest.lstrip().removeprefix("</ref>")
        wrong = ""
        if rest.lstrip().startswith("<box>"):
            wrong = "a box that does not end"
        elif not contents:
            wrong = "a text without a box"
        elif not closed:
            wrong = "a text that does not end"
        elif not text:
            wrong = "a box without a text"
        taken = piece[: len(piece) - len(rest)] if not wrong else piece
        yield taken, text, contents, wrong
        if not wrong:
            yield from _read_lines(rest)


def _read_lines(text: str) -> Iterator[Item]:
    """Yield the lines that end with boxes, and those with a box that cannot be read."""
    for line in text.splitlines():
        found = _COORDINATES.search(line)
        if found and (found["tagged"] is not None or len(_NUMBERS.findall(found["bare"])) >= 4):
            contents, rest = _take_coordinates(line[found.start() :])
            label = line[: found.start()].strip().rstrip(":：").strip()
            wrong = "" if label else "a box without a text"
            if "<box>" in rest or "</box>" in rest:
                wrong = "a box that does not end"
            yield line, label, contents, wrong
        elif "<box>" in line or "</box>" in line or "</ref>" in line:
            yield line, "", [], "a box that does not end"


def _take_coordinates(text: str) -> tuple[list[str], str]:
    contents: list[str] = []
    while found := _COORDINATES.match(text):
        contents.append(found["tagged"] if found["tagged"] is not None else found["bare"])
        text = text[found.end() :]
    return contents, text


def _read_places(contents: Sequence[str]) -> tuple[list[tuple[float, ...]], str]:
    """Return (x1, y1, x2, y2) of each box that is right, and what is wrong with another."""
    if any(_NO_NUMBERS.search(content) for content in contents):
        return [], "a box of something else than numbers"
    rows = [[float(number) for number in _NUMBERS.findall(content)] for content in contents]
    if all(len(row) == 1 for row in rows):
        rows = [[number for row in rows for number in row]]
    places: list[tuple[float, ...]] = []
    reason = ""
    for row in rows:
        if not row or len(row) % 4:
            reason = f"a box of {len(row)} numbers, not 4"
            continue
        for place in (tuple(row[at : at + 4]) for at in range(0, len(row), 4)):
            if not all(0 <= number <= SCALE for number in place):
                reason = f"a box with a number that is not 0 to {SCALE}"
            elif place[0] > place[2] or place[1] > place[3]:
                reason = "a box whose second corner is left of the first, or above it"
            else:
                places.append(place)
    return places, reason


def _to_pixels(place: Sequence[float], size: Size) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom that hold the whole place."""
    left, top = (int(number * side // SCALE) for number, side in zip(place[:2], size, strict=True))
    right, bottom = (int(-(-number * side // SCALE)) for number, side in zip(place[2:], size, strict=True))
    return left, top, right, bottom


def merge_lines(boxes: Sequence[TextBox]) -> list[TextBox]:
    """Return whole lines from top to bottom, each from left to right.

    Boxes that overlap vertically by more than half of the lower one's height are one line. Columns side by side are
    read as one, and text that is not horizontal is not turned.
    """
    lines: list[list[TextBox]] = []
    for box in sorted(boxes, key=lambda box: (box.top + box.bottom, box.left)):
        line = next((line for line in reversed(lines) if _is_beside(box, line)), None)
        if line is None:
            lines.append([box])
        else:
            line.append(box)
    return [_join(sorted(line, key=lambda box: box.left)) for line in lines]


def _is_beside(box: TextBox, line: Sequence[TextBox]) -> bool:
    """Tell whether a box stands in a line: beside the piece that is nearest to it, and over none of them."""
    nearest = min(line, key=lambda piece: max(piece.left - box.right, box.left - piece.right))
    overlap = min(box.bottom, nearest.bottom) - max(box.top, nearest.top)
    return overlap > 0.5 * min(box.bottom - box.top, nearest.bottom - nearest.top)


def _join(pieces: Sequence[TextBox]) -> TextBox:
    text = ""
    for piece in pieces:
        wide = not text or not piece.text or (_is_wide(text[-1]) and _is_wide(piece.text[0]))
        text += piece.text if wide else f" {piece.text}"
    corners = [min(box.left for box in pieces), min(box.top for box in pieces)]
    corners += [max(box.right for box in pieces), max(box.bottom for box in pieces)]
    return TextBox(text, *corners)


def _is_wide(character: str) -> bool:
    """Tell whether a character is of a script without spaces: Chinese and Japanese, and their punctuation."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"
