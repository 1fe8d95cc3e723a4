"""The page that a passage stands on, with the passage and the quoted sentence marked in it."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.rag import Passage

if TYPE_CHECKING:
    from PIL.Image import Image

_DPI = 110
_MOST_PIXELS = 1600
"""Of a side."""
_FINE = 10_000
"""Places on a page are counted in 1/10,000 of its width and height."""
MOST_CHARACTERS = 6_000
"""Of a page that is text, shown on either side of the passage."""


@dataclass(frozen=True)
class Box:
    """A marked line of a page, in percent of its width and height, from the left and top."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class PageText:
    """A page's text in pieces; each piece is "plain", "passage" or "quote"."""

    pieces: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PagePicture:
    """A page as a JPEG data URI, with boxes around the passage's lines and the quote's.

    `read` is the passage as it was read, where the page has no text in which it could be marked: of a scan.
    """

    picture: str
    passage: tuple[Box, ...] = ()
    quote: tuple[Box, ...] = ()
    read: PageText | None = None


def is_unchanged(passage: Passage) -> bool | None:
    """Tell whether the passage's file is as it was when it was indexed; None where it is gone."""
    file = Path(str(passage.metadata.get("path", "")))
    if not file.is_file():
        return None
    return hashlib.sha256(file.read_bytes()).hexdigest() == passage.metadata.get("file_hash")


def has_pictures(passage: Passage) -> bool:
    """Tell whether a passage is of a PDF or a picture, by itself or in an archive."""
    from minicpm_core.index.pages import can_be_looked_at

    return can_be_looked_at(str(passage.metadata.get("member") or passage.metadata.get("path", "")))


def draw_page(passage: Passage, quote: str) -> PagePicture:
    """Return the page of a passage that `has_pictures` as a picture.

    Raises:
        ValueError: the file is damaged, or has no such page.
        OSError: it cannot be read.
    """
    from minicpm_core.index.page_files import PageFile
    from minicpm_core.index.pages import Look

    path, place = Path(str(passage.metadata["path"])), passage.metadata
    member = place.get("member")
    file = PageFile(path.read_bytes(), path.suffix)
    if str(member or path).lower().endswith(".pdf"):
        page = _draw_pdf_page(file.read(member), passage, quote)
    else:
        page = PagePicture(_write(file.render(Look(int(place.get("part", 0)), passage.page, member=member))))
    if page.passage or not passage.text.strip():
        return page
    return replace(page, read=mark_text(passage.text, 0, len(passage.text), quote))


def draw_kept_page(passage: Passage) -> PagePicture:
    """Return a page that is stored as a picture, from its file, or as the index keeps it where that is gone.

    Raises:
        ValueError: neither is there.
    """
    from minicpm_core.index import show_page

    return PagePicture(_write_uri(show_page(passage)))


def _draw_pdf_page(data: bytes, passage: Passage, quote: str) -> PagePicture:
    from minicpm_core.pdfium import open_pdf

    number = passage.page or 1
    with open_pdf(data) as document:
        if not 1 <= number <= len(document):
            raise ValueError(f"has no page {number}")
        page = document[number - 1]
        width, height = page.get_size()
        scale = min(_DPI / 72, _MOST_PIXELS / max(width, height, 1.0))
        image = page.render(scale=scale).to_pil().convert("RGB")
        text = page.get_textpage()
        try:
            characters = _characters(text)
            first, last = find(characters, passage.text) or (0, -1)
            inside = find(characters[first : last + 1], quote) if quote else None
            quoted = (first + inside[0], first + inside[1]) if inside else (0, -1)
            marked = (_boxes(page, text, first, last), _boxes(page, text, *quoted))
        finally:
            text.close()
            page.close()
    return PagePicture(_write(image), *marked)


def _write(image: Image) -> str:
    """Return a picture as a JPEG data URI."""
    image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=80)
    return _write_uri(written.getvalue())


def _write_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def mark_text(text: str, start: int, end: int, quote: str) -> PageText:
    """Return a page's text with the passage `text[start:end]` and the quote in it marked."""
    found = find(text[start:end], quote) if quote else None
    first, last = (start + found[0], start + found[1] + 1) if found else (end, end)
    low, high = max(start - MOST_CHARACTERS, 0), min(end + MOST_CHARACTERS, len(text))
    pieces = (
        ("plain", ("… " if low else "") + text[low:start]),
        ("passage", text[start:first]),
        ("quote", text[first:last]),
        ("passage", text[last:end]),
        ("plain", text[end:high] + (" …" if high < len(text) else "")),
    )
    return PageText(tuple(piece for piece in pieces if piece[1]))


def find(text: Sequence[str], wanted: str) -> tuple[int, int] | None:
    """Return the first and last place of `wanted` in the characters `text`.

    Only letters and digits are compared, since lines are broken differently; the marks behind them belong to it.
    """
    places = [n for n, character in enumerate(text) if character.isalnum()]
    letters = "".join(_plain(text[n]) for n in places)
    sought = "".join(_plain(character) for character in wanted if character.isalnum())
    at = letters.find(sought) if sought else -1
    if at < 0:
        return None
    last = places[at + len(sought) - 1]
    stripped = wanted.rstrip()
    while stripped and not stripped[-1].isalnum():
        stripped = stripped[:-1]
    for mark in wanted.rstrip()[len(stripped) :]:
        if last + 1 < len(text) and text[last + 1] == mark:
            last += 1
    return places[at], last


def _plain(character: str) -> str:
    folded = character.casefold()
    return folded if len(folded) == 1 else character


def _characters(text: Any) -> list[str]:
    import pypdfium2.raw as pdfium

    codes = (pdfium.FPDFText_GetUnicode(text, n) for n in range(text.count_chars()))
    return [chr(code) if code <= 0x10FFFF else " " for code in codes]


def _boxes(page: Any, text: Any, first: int, last: int) -> tuple[Box, ...]:
    if last < first:
        return ()
    rectangles = (text.get_rect(n) for n in range(text.count_rects(first, last - first + 1)))
    return tuple(_place(page, rectangle) for rectangle in rectangles)


def _place(page: Any, rectangle: Sequence[float]) -> Box:
    """Return a rectangle of PDF coordinates as it is seen, the page's rotation and crop box applied."""
    import pypdfium2.raw as pdfium

    left, bottom, right, top = rectangle
    corners = []
    for x, y in ((left, top), (right, bottom)):
        across, down = ctypes.c_int(), ctypes.c_int()
        pdfium.FPDF_PageToDevice(page, 0, 0, _FINE, _FINE, 0, x, y, across, down)
        corners.append((100 * across.value / _FINE, 100 * down.value / _FINE))
    (x0, x1), (y0, y1) = (sorted(axis) for axis in zip(*corners, strict=True))
    return Box(round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2))
