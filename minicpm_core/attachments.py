"""Files in a message: the pages of a PDF, and pictures that come as a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minicpm_core.images import MAX_FILE_BYTES, PICTURE, read_image
from minicpm_core.media import Kind, find_source, read_bytes
from minicpm_core.picture_settings import PictureSettings

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = Kind("file", ("file", "document", "pdf"), "application/pdf", "a PDF: its path, URL, bytes, data URI or base64")
_TYPES = ("mime_type", "media_type", "mimetype", "document_mimetype")


def read_attachment(part: Mapping[str, Any], settings: PictureSettings, most: int) -> list[Image]:
    """Return the pages of a file part as RGB images.

    Args:
        part: {"type": "file", ...} with one of the keys of `find_source`, and "pages", numbers from 1, for some only.
        settings: whether URLs may lead to private addresses.
        most: pages that the prompt may still hold.

    Raises:
        ValueError: neither a PDF nor a picture, or a damaged one; see `media.read_bytes` for others.
    """
    if find_type(part).startswith("image/"):
        return [read_image(find_source(part, PICTURE), settings)]
    data, name = read_bytes(find_source(part, FILE), FILE, MAX_FILE_BYTES, settings)
    if b"%PDF-" not in data[:1024]:
        kind = find_type(part) or "unknown type"
        raise ValueError(
            f"the file {name} ({kind}) is no PDF; accepted are PDFs and pictures, give other texts as text"
        )
    pages = part.get("pages")
    if pages is not None and (isinstance(pages, (str, bytes)) or not hasattr(pages, "__len__")):
        raise ValueError(f"pages is {pages!r}; accepted: a list of page numbers from 1")
    from minicpm_core.pdfium import render_pages

    try:
        return render_pages(data, pages, most=most)
    except ValueError as error:
        raise ValueError(f"the PDF {name} {error}") from None


def find_type(part: Mapping[str, Any]) -> str:
    """Return the MIME type that a part or its source names, "" where there is none."""
    places = [part, *(part[key] for key in ("source", "file") if isinstance(part.get(key), Mapping))]
    return next((str(place[name]).lower() for place in places for name in _TYPES if place.get(name)), "")
