"""Reads a file into the text of its pages, by the suffix of its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from minicpm_core.index.archive import Archive, Member
from minicpm_core.index.epub import read_epub
from minicpm_core.index.html import find_charset, read_html
from minicpm_core.index.office import read_docx, read_pptx
from minicpm_core.index.outline import Page, chapter_headings, code_headings, markdown_headings
from minicpm_core.index.pages import NO_TEXT_LAYER, PICTURE_UNREAD, is_picture_file
from minicpm_core.index.pdf import read_pdf_pages
from minicpm_core.index.pdf_outline import read_pdf_headings
from minicpm_core.index.tables import read_csv, read_xlsx
from minicpm_core.index.text_encoding import decode

MAX_FILE_BYTES = 200 * 1024 * 1024
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(?:[A-Za-z_][\w .-]*:.*\n|[ \t]+\S.*\n|[ \t]*- .*\n|#.*\n|[ \t]*\n)+(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)


def _read_pdf(data: bytes) -> list[Page]:
    texts = read_pdf_pages(data)
    headings = read_pdf_headings(data, texts)
    pages = [Page(n + 1, text, found) for n, (text, found) in enumerate(zip(texts, headings, strict=True))]
    if not any(page.text for page in pages):
        raise ValueError(NO_TEXT_LAYER)
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


def _read_code(data: bytes) -> list[Page]:
    text = decode(data)
    return [Page(None, text, code_headings(text), by_line=True)]


_CODE = (
    "py pyi ipynb js jsx mjs ts tsx java kt kts scala groovy c h cc cpp cxx hpp cs go rs rb php swift m mm r jl lua pl "
    "pm dart ex exs erl hs ml fs clj sh bash zsh ps1 bat sql css scss vue svelte json jsonl yaml yml toml ini cfg conf "
    "xml proto graphql cmake gradle tf"
)
_TEXT = "txt text log rst tex org adoc srt vtt"
READERS: Mapping[str, Callable[[bytes], list[Page]]] = {
    ".pdf": _read_pdf,
    **{f".{name}": _read_text for name in _TEXT.split()},
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    **dict.fromkeys((".html", ".htm", ".xhtml"), _read_html),
    ".docx": read_docx,
    ".pptx": read_pptx,
    ".xlsx": read_xlsx,
    ".xlsm": read_xlsx,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".epub": read_epub,
    **{f".{name}": _read_code for name in _CODE.split()},
}
ARCHIVES = frozenset({".zip"})
_DOCUMENTS = ", ".join(suffix for suffix, reader in READERS.items() if reader is not _read_code)
ACCEPTED_TYPES = f"{_DOCUMENTS}, source code (.py, .js, .java, .c, .json, ...), and .zip archives of these"


def is_archive(path: str | Path) -> bool:
    """Tell whether the name is that of an archive."""
    return Path(path).suffix.lower() in ARCHIVES


def is_readable_type(path: Path) -> bool:
    """Tell whether there is a reader for the suffix of `path`."""
    return path.suffix.lower() in READERS or is_archive(path)


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file of an accepted type and size, or of a picture.

    Raises:
        ValueError: the type is not read, or the file is larger than MAX_FILE_BYTES.
        OSError: the file cannot be opened.
    """
    if not (is_readable_type(path) or is_picture_file(path)):
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
        ImportError: the library for that type is not installed.
    """
    try:
        pages = READERS[suffix.lower()](data)
    except (ValueError, ImportError, MemoryError):
        raise
    except Exception as error:  # the libraries raise what they like on damaged files
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"is damaged or no {suffix} file ({type(error).__name__}: {reason}); open it and save it again"
        ) from error
    if not any(page.text.strip() for page in pages):
        raise ValueError("is empty")
    return pages


@dataclass(frozen=True)
class Parts:
    """The pages of a file or of all files in an archive.

    Args:
        pages: in order; those of an archive are read as they are asked for.
        failed: names and reasons of the members that could not be read, complete when the pages are.
    """

    pages: Iterable[Page]
    failed: list[tuple[str, str]] = field(default_factory=list)


def read_parts(data: bytes, suffix: str) -> Parts:
    """Return the pages of a file's contents; see `read_pages` for the errors.

    Args:
        data: the contents.
        suffix: of the file's name; of an archive the members of accepted types are read.
    """
    if suffix.lower() not in ARCHIVES:
        return Parts(read_pages(data, suffix))
    archive = Archive(data)
    members = sorted(archive.members(), key=lambda member: member.name)
    if not members:
        raise ValueError("is an archive without files")
    failed: list[tuple[str, str]] = []
    return Parts(_read_members(archive, members, failed), failed)


def _read_members(archive: Archive, members: Iterable[Member], failed: list[tuple[str, str]]) -> Iterator[Page]:
    for member in members:
        try:
            pages = read_member(archive, member)
        except (ValueError, ImportError) as error:
            failed.append((member.name, str(error)))
            continue
        for page in pages:
            yield replace(page, member=member.name)


def read_member(archive: Archive, member: Member) -> list[Page]:
    """Return the pages of a file in an archive; see `read_pages` for the errors."""
    suffix = PurePosixPath(member.name).suffix.lower()
    if suffix in ARCHIVES:
        raise ValueError("is an archive inside an archive, which is not opened; unpack it")
    if is_picture_file(member.name):
        raise ValueError(PICTURE_UNREAD)
    if suffix not in READERS:
        raise ValueError(f"has the type {suffix or '(none)'!r}; accepted are {ACCEPTED_TYPES}")
    return read_pages(archive.read(member, MAX_FILE_BYTES), suffix)
