"""Reads a file into the text of its pages, by the suffix of its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minicpm_core.index.html import find_charset, read_html
from minicpm_core.index.outline import Page, chapter_headings, markdown_headings
from minicpm_core.index.pdf import read_pdf_pages
from minicpm_core.index.text_encoding import decode

MAX_FILE_BYTES = 200 * 1024 * 1024
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?:[A-Za-z_][\w .-]*:.*\n|[ \t]+\S.*\n|[ \t]*- .*\n|#.*\n|[ \t]*\n)+(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)


def _read_pdf(data: bytes) -> list[Page]:
    pages = [Page(n, text) for n, text in enumerate(read_pdf_pages(data), start=1)]
    if not any(page.text for page in pages):
        raise ValueError(
            "has no text layer (pages as pictures are not read yet); run it through text recognition (OCR)"
        )
    return pages


def _read_text(data: bytes) -> list[Page]:
    text = decode(data)
    return [Page(None, text, chapter_headings(text))]


def _read_markdown(data: bytes) -> list[Page]:
    text = decode(data)
    body = _FRONT_MATTER.sub("", text, count=1)
    body = body if body.strip() else text
    return [Page(None, body, markdown_headings(body))]


def _read_html(data: bytes) -> list[Page]:
    return [Page(None, *read_html(decode(data, declared=find_charset(data))))]


READERS: Mapping[str, Callable[[bytes], list[Page]]] = {
    ".pdf": _read_pdf,
    ".txt": _read_text,
    ".text": _read_text,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".html": _read_html,
    ".htm": _read_html,
}
ACCEPTED_TYPES = ", ".join(READERS)


def is_readable_type(path: Path) -> bool:
    """Tell whether there is a reader for the suffix of `path`."""
    return path.suffix.lower() in READERS


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file of an accepted type and size.

    Raises:
        ValueError: the type is not read, or the file is larger than MAX_FILE_BYTES.
        OSError: the file cannot be opened.
    """
    if not is_readable_type(path):
        raise ValueError(f"has the type {path.suffix or '(none)'!r}; accepted are {ACCEPTED_TYPES}")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(
            f"has {size / 2**20:.0f} MB; accepted are files up to {MAX_FILE_BYTES / 2**20:.0f} MB, split it"
        )
    return path.read_bytes()


def read_pages(data: bytes, suffix: str) -> list[Page]:
    """Return the pages of a file's contents.

    Raises:
        ValueError: the contents cannot be read as that type, or hold no text; the message continues a file's name.
    """
    pages = READERS[suffix.lower()](data)
    if not any(page.text.strip() for page in pages):
        raise ValueError("is empty")
    return pages


@dataclass(frozen=True)
class Parts:
    """The pages of a file, and the members of an archive that could not be read, known when the pages are."""

    pages: Iterable[Page]
    failed: list[tuple[str, str]] = field(default_factory=list)


def read_parts(data: bytes, suffix: str) -> Parts:
    """Return the pages of a file's contents; see `read_pages`."""
    return Parts(read_pages(data, suffix))
