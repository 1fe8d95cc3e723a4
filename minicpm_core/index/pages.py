"""Pages as pictures: which of a file's pages are looked at, how they are rendered, and what is kept of them."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from minicpm_core.images import read_image
from minicpm_core.index.outline import Page
from minicpm_core.index.pdf import read_pdf_pages
from minicpm_core.index.pdf_outline import read_pdf_headings
from minicpm_core.pdfium import render_pages
from minicpm_core.rag import Passage

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

PICTURES = frozenset(".png .jpg .jpeg .webp .tif .tiff .bmp .gif".split())
PICTURE_UNREAD = (
    "is a picture; set pages to 'image' or 'auto', or give a vision model as page_model=..., to have it indexed"
)
HOW_TO_LOOK = "give a vision model as page_model=..., or set pages to 'image' or 'auto'"
NO_TEXT_LAYER = f"has no text layer; {HOW_TO_LOOK}, to have its pages looked at"
THUMBNAILS = "pages"
THUMBNAIL_SIDE = 1024
"""Longest side of what is kept, in pixels: enough to recognise a page, and to read it where its file is gone."""
_BLANK_DPI = 36
_BLANK = 24  # of 255: what paper and scanner differ by
_MOST_FRAMES = 1000


@dataclass(frozen=True)
class Look:
    """A page that has to be looked at.

    Args:
        part: counts from 0, in an archive over all its files.
        number: of the page in its file, from 1; None for a picture of one page.
        text: its text layer.
        member: the file in an archive that it is of.
    """

    part: int
    number: int | None
    text: str = ""
    member: str | None = None

    @property
    def place(self) -> int:
        """The page's place in its file, from 0."""
        return (self.number or 1) - 1


def is_picture_file(path: str | Path) -> bool:
    """Tell whether the name is that of a picture."""
    return Path(path).suffix.lower() in PICTURES


def can_be_looked_at(path: str | Path) -> bool:
    """Tell whether the name is that of a picture or a PDF."""
    return is_picture_file(path) or Path(path).suffix.lower() == ".pdf"


def find_looks(data: bytes, suffix: str, mode: str) -> tuple[list[Page], list[Look]]:
    """Return the pages that are read by their text, and those that have to be looked at; blank ones are neither.

    Args:
        data: a PDF or a picture.
        suffix: of the file's name.
        mode: `RagSettings.pages`.

    Raises:
        ValueError: the file is damaged.
    """
    if suffix.lower() in PICTURES:
        count = count_frames(data) if suffix.lower() in (".tif", ".tiff") else 1
        return [], [Look(part, part + 1 if count > 1 else None) for part in range(count)]
    texts = read_pdf_pages(data)
    headings = read_pdf_headings(data, texts)
    whole = [Page(n, text, found) for n, (text, found) in enumerate(zip(texts, headings, strict=True), start=1)]
    if mode == "image":
        return [], [Look(n, n + 1, text) for n, text in enumerate(texts)]
    return whole, [Look(n, n + 1) for n, text in enumerate(texts) if not text.strip()]


def count_frames(data: bytes) -> int:
    """Return the number of pages of a TIFF."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return min(int(getattr(image, "n_frames", 1)), _MOST_FRAMES)
    except Exception:
        return 1  # reading it tells what is wrong


def render_page(data: bytes, suffix: str, look: Look) -> Image:
    """Return a page as an upright RGB picture.

    Raises:
        ValueError: it cannot be rendered.
    """
    if suffix.lower() == ".pdf":
        return render_pages(data, [look.place + 1], most=1)[0]
    if not look.place:
        return read_image(data)
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.seek(look.place)
        return read_image(image)


def is_blank(page: Image) -> bool:
    """Tell whether a page shows nothing."""
    low, high = page.convert("L").reduce(max(1, min(page.size) // 200)).getextrema()
    return int(high) - int(low) < _BLANK  # type: ignore[arg-type]


def unread_pages(data: bytes, looks: Sequence[Look]) -> list[int]:
    """Return the numbers of the pages of a PDF without text that show something, or that cannot be rendered."""
    unread = []
    for look in looks:
        try:
            blank = is_blank(render_pages(data, [look.place + 1], most=1, dpi=_BLANK_DPI)[0])
        except (ValueError, ImportError):
            blank = False
        unread += [] if blank else [look.place + 1]
    return unread


def page_id(path: str, part: int, digest: str) -> str:
    """Return the id of a page that is stored as a picture."""
    return hashlib.sha256(f"{path}\0page {part}\0{digest}".encode()).hexdigest()


def to_jpeg(page: Image, side: int | None = None) -> bytes:
    """Return a picture as JPEG, its longest side at most `side` pixels."""
    if side is not None and max(page.size) > side:
        page = page.copy()
        page.thumbnail((side, side))
    stream = io.BytesIO()
    page.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def show_page(passage: Passage) -> bytes:
    """Return the page of a passage that is stored as a picture, as JPEG: from its file, large enough to be read.

    Where the file is gone or has changed, the kept thumbnail is returned, and the log says so.

    Raises:
        ValueError: the passage is text, or neither file nor thumbnail is there.
    """
    if passage.thumbnail is None:
        raise ValueError(f"a passage of {passage.source} is text, not a picture of a page")
    place = passage.metadata
    look = Look(int(place.get("part", 0)), place.get("page"), member=place.get("member"))
    return _show(str(place.get("path")), look, str(place.get("file_hash")), passage.thumbnail)


@lru_cache(maxsize=8)
def _show(path: str, look: Look, digest: str, thumbnail: str) -> bytes:
    from minicpm_core.index.page_files import PageFile

    file = Path(path)
    try:
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() == digest:
            return to_jpeg(PageFile(data, file.suffix).render(look))
        reason = "has changed since it was indexed"
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({error})"
    logger.warning("%s %s; its small picture in the index is shown instead", path, reason)
    try:
        return Path(thumbnail).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} {reason}, and so is its picture in the index; call build_index again") from error
