"""The text of an HTML page without scripts, styles and navigation; blocks become lines and paragraphs."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from minicpm_core.index.outline import Heading, clear_marks, close_heading, open_heading, take_headings

_SKIPPED = frozenset({"script", "style", "nav", "template", "noscript", "svg", "iframe", "object", "select", "button"})
_PARAGRAPHS = frozenset(
    "p h1 h2 h3 h4 h5 h6 ul ol dl table blockquote pre section article header footer main title hr".split()
)
_LINES = frozenset(
    "div br li dt dd tr caption figcaption figure address aside form fieldset details summary option".split()
)
_CELLS = frozenset({"td", "th"})
_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_META_CHARSET = re.compile(
    rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*["']([\w.:-]+)""", re.I
)


def find_charset(data: bytes) -> str | None:
    """Return the encoding that the page declares in its first 4096 bytes."""
    found = _META_CHARSET.search(data[:4096])
    return (found[1] or found[2]).decode("ascii") if found else None


def read_html(html: str) -> tuple[str, tuple[Heading, ...]]:
    """Return the readable text of a page, and its headings; a page that is all navigation keeps it."""
    found = take_headings(_extract(html, _SKIPPED))
    return (
        found
        if found[0]
        else take_headings(_extract(html, _SKIPPED - {"nav", "noscript", "button", "select", "object"}))
    )


def _extract(html: str, skipped: frozenset[str]) -> str:
    page = _Page(skipped)
    page.feed(clear_marks(html))
    page.close()
    text = "".join(page.parts)
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    heading = f"(?:{open_heading(1)[0]}[1-6] ?)?"
    return re.sub(
        rf"\A(.+)\n\n(?={heading}\1{close_heading()}?(?:\n|\Z))", "", text
    )  # the title again as first heading


class _Page(HTMLParser):
    def __init__(self, skipped: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped = skipped
        self._inside: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._skipped:
            self._inside.append(tag)
        self._pre += tag == "pre"
        self._break(tag)
        if tag in _HEADINGS and not self._inside:
            self.parts.append(open_heading(int(tag[1])))
        if tag == "img" and not self._inside:
            self.parts += [f" {value} " for name, value in attrs if name == "alt" and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            del self._inside[self._inside.index(tag) :]
        self._pre = max(0, self._pre - (tag == "pre"))
        if tag in _HEADINGS and not self._inside:
            self.parts.append(close_heading())
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._inside and (self._pre or data.strip() or not self._at_line_start()):
            self.parts.append(data if self._pre else re.sub(r"\s+", " ", data))

    def _at_line_start(self) -> bool:
        return bool(self.parts) and self.parts[-1].endswith("\n")

    def _break(self, tag: str) -> None:
        if self._inside:
            return
        if tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag == "br" or (tag in _LINES and not self._at_line_start()):
            self.parts.append("\n")
        elif tag in _CELLS:
            self.parts.append(" ")
