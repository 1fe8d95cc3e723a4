"""Books in EPUB: their chapters in reading order, as one text."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote
from xml.etree import ElementTree

from minicpm_core.index.archive import MAX_DOCUMENT_BYTES, Archive
from minicpm_core.index.html import find_charset, read_html
from minicpm_core.index.outline import Heading, Page
from minicpm_core.index.text_encoding import decode

_CONTAINER = "META-INF/container.xml"
_TITLE = re.compile(r"<title\b.*?</title>", re.IGNORECASE | re.DOTALL)  # most often the book's, in every chapter
_GAP = "\n\n"


def read_epub(data: bytes) -> list[Page]:
    """Return the text of a book as one page, with the headings of its chapters.

    Raises:
        ValueError: it is damaged, no book, or its parts are missing.
    """
    archive = Archive(data, MAX_DOCUMENT_BYTES)
    root = _parse(archive.read_named(_CONTAINER)).find("{*}rootfiles/{*}rootfile")
    package = unquote(root.get("full-path", "")) if root is not None else ""
    book = _parse(archive.read_named(package))
    items = {item.get("id"): item for item in book.iterfind("{*}manifest/{*}item")}
    text = ""
    headings: list[Heading] = []
    for entry in book.iterfind("{*}spine/{*}itemref"):
        item = items.get(entry.get("idref"))
        if item is None or "nav" in (item.get("properties") or "").split():
            continue
        if "html" not in (item.get("media-type") or ""):
            continue
        name = posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(item.get("href", ""))))
        page = archive.read_named(name)
        chapter, found = read_html(_TITLE.sub("", decode(page, declared=find_charset(page))))
        if chapter:
            text += _GAP if text else ""
            headings += [Heading(heading.start + len(text), heading.level, heading.text) for heading in found]
            text += chapter
    return [Page(None, text, tuple(headings))]


def _parse(xml: bytes) -> ElementTree.Element:
    if b"<!ENTITY" in xml:
        raise ValueError("declares XML entities, which no book needs; it is not read")
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(f"is damaged ({error}); open it and save it again") from None
