"""The text of a PDF page by page, with wrapped lines joined and words divided at a line's end made whole."""

from __future__ import annotations

import re

from minicpm_core.index.words import CJK
from minicpm_core.pdfium import open_pdf

_NEW_LINE = re.compile(
    r"(?:[-*+•·●▪◦‣o]\s|\(?\d{1,3}[.)、．]\s?\D|[(（]?[一二三四五六七八九十]{1,3}[)）、．]|第[一二三四五六七八九十\d]+[条章节款])"
)
_LINE_END = re.compile(r"[。！？；：.!?:;][\"'”’」』）)\]]*$")
_JOINS_TIGHT = re.compile(f"[{CJK}，。、；：！？“”‘’（）《》【】「」『』…—]")
_SHORT = 0.7
_DIVIDED = "\ufffe"


def read_pdf_pages(data: bytes) -> list[str]:
    """Return the text of every page, in order; pages without text are "".

    Raises:
        ValueError: the file is encrypted, damaged or not a PDF.
    """
    with open_pdf(data) as document:
        pages = [_page_text(document, n) for n in range(len(document))]
    return [mend_lines(page) for page in pages]


def _page_text(document: object, n: int) -> str:
    page = document[n]  # type: ignore[index]
    text_page = page.get_textpage()
    try:
        return str(text_page.get_text_range())
    finally:
        text_page.close()
        page.close()


def mend_lines(text: str) -> str:
    """Join the lines of a page: a break stays after a short line, after a sentence and before a list item."""
    # PDFium marks a hyphen that divides a word at a line's end with U+FFFE and drops the break.
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    text = re.sub(r"(?<=\w)[\ufffe\x02]\n?(?=\w)|(?<=[a-z])[-\u00ad\u2010]\n(?=[a-z])", f"{_DIVIDED}\n", text)
    text = re.sub(r"[\ufffe\x02](?!\n)", "-", text)
    lines = [line.strip() for line in text.split("\n")]
    widths = sorted(_width(line) for line in lines if line)
    usual = widths[int(len(widths) * 0.9)] if widths else 0
    mended: list[str] = []
    wrapped = False
    for line in lines:
        if mended and mended[-1].endswith(_DIVIDED):
            mended[-1] = mended[-1].removesuffix(_DIVIDED) + line
        elif mended and wrapped and line and not _NEW_LINE.match(line):
            tight = _JOINS_TIGHT.match(mended[-1][-1]) or _JOINS_TIGHT.match(line)
            mended[-1] += line if tight else f" {line}"
        else:
            mended.append(line)
        wrapped = bool(line) and _width(line) >= _SHORT * usual and not _LINE_END.search(line)
    return "\n".join(mended).strip()


def _width(line: str) -> int:
    return len(line) + len(re.findall(f"[{CJK}]", line))
