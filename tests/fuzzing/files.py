"""Targets: files of strangers that are read for an index or shown to a model."""
# ruff: noqa: E501

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.mutation import mutated, mutated_members
from tests.fuzzing.target import CORPUS, Target, attempt

_PDF = (
    b"obj endobj stream endstream xref trailer startxref %%EOF /Type /Page /Pages /Kids /Count /Parent /Root /Length /Filter "
    b"/FlateDecode /ASCIIHexDecode /ASCII85Decode /LZWDecode /RunLengthDecode /DCTDecode /JBIG2Decode /JPXDecode /Font "
    b"/Encoding /ToUnicode /Outlines /First /Next /Prev /Dest /Title /A /GoTo /JavaScript /OpenAction /Encrypt /ObjStm "
    b"/XRef /W /Index /MediaBox /Rotate /XObject /Form /Matrix /BBox /Resources /Annots /AcroForm /Names 0 -1 1 2147483647 "
    b"4294967296 99999999999999999999 1e308 0.0000001 R 0R << >> [ ] ( ) < > BT ET Tf Tj Do cm q Q"
).split()
_PDF += [b"1 0 R", b"2 0 R", b"3 0 R", b" ", b"\n", b"[0 0 0 0]", b"[0 0 1e9 1e9]"]
_PICTURE = [
    b"\x89PNG\r\n\x1a\n", b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fdAT", b"zTXt",
    b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"\xff\xdb", b"\xff\xe1", b"\xff\xee",
    b"Exif\0\0", b"MM\0*", b"II*\0", b"GIF89a", b"\x21\xf9\x04", b"\x2c", b"\x3b", b"RIFF", b"WEBP", b"VP8 ", b"VP8L",
    b"VP8X", b"ANIM", b"ANMF", b"BM", b"\x28\0\0\0", b"P6\n", b"P4\n", b"65535", b"99999999", b"\0\0\1\0", b"ftypavif",
]  # fmt: skip
_XML = [
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>', b"&b;", b"&a;",
    b'<!DOCTYPE x SYSTEM "file:///etc/passwd">', b"<!ENTITY % p SYSTEM 'http://127.0.0.1:9/'>%p;", b"<w:p>", b"</w:p>",
    b"<w:tbl>", b"<w:tr>", b"<w:tc>", b"<w:gridSpan w:val='99999999'/>", b'Target="../../../etc/passwd"',
    b'TargetMode="External"', b'r:id="rId1"', b'r:id="rId99"', b"xmlns:w='x'", b"<a:p/>", b"<c t='s'><v>99999999</v></c>",
    b"<c r='XFD1048576'><v>1</v></c>", b"<row r='1048576'>", b"<v>1e999</v>", b"<f>1/0</f>", b"<itemref idref='a'/>", b"<",
    b">", b"&", b"]]>", b"<![CDATA[", b"&#0;", b"&#x110000;", b"\xff\xfe", b"<h1>", b"</h6>", b"<pre>", b"<svg>", b"<td>",
    b'<meta charset="utf-16">', b'<meta charset="idna">', b'<meta charset="hex">', b"<!--", b"<table>" * 50,
]  # fmt: skip
_TEXT = [
    b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\0\0", b"\0", b"\x80\x81", b"\xc3\x28", b"\xed\xa0\x80", b"# ",
    b"```", b"---\n", b'"', b",", b";", b"\t", b"\r", b"\n" * 50, b"(" * 200, b"[" * 200, "第一章 ".encode(), "。".encode("gb18030"),
    b"class A:\n", b"=" * 300, b"\x1a", b"\xe2\x80\xa8",
]  # fmt: skip
_SUFFIXES = (".docx", ".pptx", ".xlsx", ".epub", ".zip")


def _seeds(name: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((CORPUS / name).glob("seed-*"))]


def _check_picture(data: Any) -> Counter[str]:
    from minicpm_core.images import MAX_PIXELS, read_image
    from minicpm_core.index.pages import Look, count_frames, render_page

    seen: Counter[str] = Counter()
    image = attempt(lambda: read_image(data), seen)
    assert image is None or (image.mode == "RGB" and 0 < image.width * image.height <= MAX_PIXELS)
    frames = count_frames(data)
    for part in {0, frames - 1}:
        attempt(lambda part=part: render_page(data, ".tiff", Look(part, None)), seen)
    return seen


def _check_pdf(data: Any) -> Counter[str]:
    from minicpm_core.attachments import read_attachment
    from minicpm_core.index.pages import find_looks, unread_pages
    from minicpm_core.index.readers import read_pages
    from minicpm_core.picture_settings import PictureSettings

    seen: Counter[str] = Counter()
    pages = attempt(lambda: read_pages(data, ".pdf"), seen)
    assert pages is None or all(heading.start <= len(page.text) for page in pages for heading in page.headings)
    found = attempt(lambda: find_looks(data, ".pdf", "auto"), seen)
    if found is not None:
        attempt(lambda: unread_pages(data, found[1][:4]), seen)
    part = {"type": "file", "file": data}
    attempt(lambda: read_attachment(part, PictureSettings(), 4), seen)
    return seen


def _check_document(data: Any, suffixes: tuple[str, ...]) -> Counter[str]:
    from minicpm_core.index.readers import read_parts

    seen: Counter[str] = Counter()
    for suffix in suffixes:
        parts = attempt(lambda suffix=suffix: read_parts(data, suffix), seen)
        pages = attempt(lambda parts=parts: list(parts.pages), seen) if parts is not None else None
        for page in pages or ():
            assert all(0 <= heading.start <= len(page.text) for heading in page.headings)
            page.text.encode()
    return seen


def _check_container(data: Any) -> Counter[str]:
    """Read an archive as the kind that its members tell, and as a plain archive."""
    named = {b"word/": ".docx", b"ppt/": ".pptx", b"xl/": ".xlsx", b"META-INF/": ".epub"}
    kinds = [suffix for mark, suffix in named.items() if mark in data]
    return _check_document(data, (*kinds[:1], ".zip"))


PICTURES = Target("pictures", st.deferred(lambda: mutated(_seeds("pictures"), _PICTURE)), _check_picture)
PDFS = Target("pdf", st.deferred(lambda: mutated(_seeds("pdf"), _PDF)), _check_pdf)
CONTAINERS = Target("containers", st.deferred(lambda: mutated_members(_seeds("containers"), _XML)), _check_container)
TEXTS = Target(
    "texts",
    st.deferred(lambda: mutated(_seeds("texts"), [*_TEXT, *_XML])),
    partial(_check_document, suffixes=(".txt", ".md", ".html", ".csv", ".py")),
)
