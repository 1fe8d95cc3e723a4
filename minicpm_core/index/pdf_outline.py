"""The bookmarks of a PDF as the headings of its pages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from minicpm_core.index.outline import Heading, chapter_headings
from minicpm_core.pdfium import open_pdf


def read_pdf_headings(data: bytes, texts: Sequence[str]) -> list[tuple[Heading, ...]]:
    """Return the headings of every page: its bookmarks, or in a file without them the lines that name chapters.

    Args:
        data: a PDF.
        texts: of its pages; a bookmark's heading starts where its title stands, else where the page does.
    """
    marks: list[list[tuple[int, str]]] = [[] for _ in texts]
    with open_pdf(data) as document:
        for bookmark in document.get_toc():
            target = bookmark.get_dest()
            place = target.get_index() if target else None
            title = " ".join(bookmark.get_title().split())
            if place is not None and 0 <= place < len(texts) and title:
                marks[place].append((bookmark.level + 1, title))
    if not any(marks):
        return [chapter_headings(text) for text in texts]
    return [_place(titles, text) for titles, text in zip(marks, texts, strict=True)]


def _place(titles: Sequence[tuple[int, str]], text: str) -> tuple[Heading, ...]:
    headings: list[Heading] = []
    start = 0
    for level, title in titles:
        found = re.compile(r"\s+".join(map(re.escape, title.split())), re.IGNORECASE).search(text, start)
        start = found.start() if found else start
        headings.append(Heading(start, level, title))
    return tuple(headings)
