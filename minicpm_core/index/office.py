"""Word documents and PowerPoint slides: text, tables, notes, and the headings that their styles tell."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minicpm_core.index.archive import MAX_DOCUMENT_BYTES, Archive
from minicpm_core.index.outline import Page, clear_marks, mark_heading, take_headings

if TYPE_CHECKING:
    from docx.text.paragraph import Paragraph

_HEADING_STYLE = re.compile(r"(?:heading|标题)\s*([1-9])", re.IGNORECASE)
_ITEM = "- "
_TITLE_STYLES = ("title", "标题")


def read_docx(data: bytes) -> list[Page]:
    """Return the text of a Word document (.docx) as one page.

    Raises:
        ValueError: it is damaged or no such document.
        ImportError: python-docx is not installed.
    """
    try:
        from docx import Document
        from docx.text.paragraph import Paragraph
    except ImportError as error:
        raise ImportError(needs(".docx files", "python-docx"), name=error.name) from error
    Archive(data, MAX_DOCUMENT_BYTES)
    blocks: list[str] = []
    with reading(".docx"):
        for item in Document(io.BytesIO(data)).iter_inner_content():
            if isinstance(item, Paragraph):
                blocks.append(_paragraph(item))
            else:
                blocks.append(write_table(_word_cells(row) for row in item.rows))
    return [Page(None, *take_headings(join_blocks(blocks)))]


def _paragraph(paragraph: Paragraph) -> str:
    text = clear_marks(paragraph.text).strip()
    style: Any = paragraph.style
    while text and style is not None:
        name = (style.name or "").lower()
        if name in _TITLE_STYLES:
            return mark_heading(1, text)
        if found := _HEADING_STYLE.fullmatch(name):
            return mark_heading(int(found[1]) + 1, text)  # below the document's title
        if name.startswith("list "):
            return _ITEM + text
        style = style.base_style
    return text


def _word_cells(row: Any) -> list[str]:
    """Return the cells of a row; one that spans several columns comes once."""
    cells: list[Any] = []
    for cell in row.cells:
        if not cells or cell._tc is not cells[-1]._tc:
            cells.append(cell)
    return [cell.text for cell in cells]


def read_pptx(data: bytes) -> list[Page]:
    """Return the slides of a PowerPoint presentation (.pptx), notes below the text.

    Raises:
        ValueError: it is damaged or no such presentation.
        ImportError: python-pptx is not installed.
    """
    try:
        from pptx import Presentation
    except ImportError as error:
        raise ImportError(needs(".pptx files", "python-pptx"), name=error.name) from error
    Archive(data, MAX_DOCUMENT_BYTES)
    with reading(".pptx"):
        return [_slide(number, slide) for number, slide in enumerate(Presentation(io.BytesIO(data)).slides, start=1)]


def _slide(number: int, slide: Any) -> Page:
    title = slide.shapes.title
    blocks = [mark_heading(1, title.text_frame.text)] if title is not None and title.has_text_frame else []
    blocks += _shapes(shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id)
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
        blocks.append(clear_marks(notes.text).strip())
    return Page(number, *take_headings(join_blocks(blocks)))


def _shapes(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):  # a group
            yield from _shapes(shape.shapes)
        elif getattr(shape, "has_table", False):
            yield write_table([cell.text for cell in row.cells] for row in shape.table.rows)
        elif getattr(shape, "has_text_frame", False):
            lines = (clear_marks(paragraph.text).strip() for paragraph in shape.text_frame.paragraphs)
            yield "\n".join(line.replace("\v", "\n") for line in lines if line)


def write_table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as lines of Markdown, those without text left out."""
    lines = []
    for row in rows:
        cells = [" ".join(clear_marks(cell).split()).replace("|", "/") for cell in row]
        if any(cells):
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def join_blocks(blocks: Iterable[str]) -> str:
    """Return blocks as paragraphs; the items of a list stand right below each other."""
    text = last = ""
    for block in filter(str.strip, blocks):
        gap = "\n" if last.startswith(_ITEM) and block.startswith(_ITEM) else "\n\n"
        text += (gap if last else "") + block
        last = block
    return text


@contextmanager
def reading(suffix: str) -> Iterator[None]:
    """Turn what a library raises on a damaged file of that type, of whatever kind, into a ValueError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"is damaged or no {suffix} file ({type(error).__name__}: {reason}); open it and save it again"
        ) from error


def needs(what: str, package: str) -> str:
    """Return what an ImportError says."""
    return f'{what} need {package}: pip install "minicpm-integrations[docs]"'
