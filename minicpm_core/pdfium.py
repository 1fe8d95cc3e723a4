"""PDFs through PDFium, which keeps global state: one document at a time in a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

_ONE = threading.Lock()
DPI = 144
"""An A4 page becomes 1190 x 1684 pixels, a little more than nine tiles of the usual size show."""
MAX_PAGE_PIXELS = 4_000_000
"""Larger pages are rendered with fewer dots per inch."""


@contextmanager
def open_pdf(data: bytes) -> Iterator[Any]:
    """Yield the pypdfium2 document; no other is open meanwhile.

    Raises:
        ValueError: it is encrypted, damaged or not a PDF.
        ImportError: pypdfium2 is not installed.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise ImportError('PDFs need pypdfium2: pip install "minicpm-integrations[vision]"') from error

    with _ONE:
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise ValueError("is protected by a password; save it without one") from None
            raise ValueError("is damaged or not a PDF; open it in a viewer and save it again") from None
        try:
            yield document
        except pypdfium2.PdfiumError as error:
            raise ValueError(f"is damaged: {error}; open it in a viewer and save it again") from None
        finally:
            document.close()


def render_pages(data: bytes, numbers: Sequence[int] | None = None, *, most: int, dpi: float = DPI) -> list[Image]:
    """Return pages as RGB images.

    Args:
        data: a PDF.
        numbers: of the pages, from 1; None is all of them.
        most: pages that are rendered at most.
        dpi: dots per inch; fewer for pages that would have more than `MAX_PAGE_PIXELS`.

    Raises:
        ValueError: it is encrypted, damaged or not a PDF, has no such page, or too many are asked for.
    """
    with open_pdf(data) as document:
        count = len(document)
        wanted = range(1, count + 1) if numbers is None else numbers
        if len(wanted) > most:
            raise ValueError(f"has {len(wanted)} pages to show, and {most} are left of what a prompt may hold")
        for number in wanted:
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= count:
                raise ValueError(f"has no page {number!r}; its pages are 1 to {count}")
        return [_render(document, number - 1, dpi / 72) for number in wanted]


def _render(document: Any, place: int, scale: float) -> Image:
    page = document[place]
    try:
        width, height = (max(side, 1.0) for side in page.get_size())
        scale = min(scale, (MAX_PAGE_PIXELS / (width * height)) ** 0.5)
        bitmap = page.render(scale=scale)
        try:
            return bitmap.to_pil().convert("RGB")  # type: ignore[no-any-return]
        finally:
            bitmap.close()
    finally:
        page.close()
