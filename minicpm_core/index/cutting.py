"""From the pages of a file to passages that tell where they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from minicpm_core.index.catalog import FileRow, StoredChunk
from minicpm_core.index.embedders import Embedder, measure
from minicpm_core.index.outline import Outline, Page
from minicpm_core.index.splitter import split_text
from minicpm_core.rag import RagSettings

# Part of every file's record: raise it when the splitter or a reader changes, and files are split anew.
SPLITTING_VERSION = 2
HEADING_SEPARATOR = " > "


def splitting_name(settings: RagSettings) -> str:
    """Return what a file's record says about the way it was cut."""
    return f"{settings.chunk_size}/{settings.chunk_overlap}/{SPLITTING_VERSION}"


def cut_pages(
    pages: Iterable[Page], file: FileRow, settings: RagSettings, embedder: Embedder
) -> Iterator[tuple[Page, list[StoredChunk]]]:
    """Yield each page with its passages; no passage is longer than the embedder reads.

    A passage is `page.text[start:end]` of its metadata; "part" counts the file's pages from 0, "heading" is the way to
    the passage through the headings above it.
    """
    count_tokens, longest = measure(embedder)
    size = min(settings.chunk_size, longest or settings.chunk_size)
    overlap = min(settings.chunk_overlap, size - 1)
    outline, member, number = Outline(), None, 0
    for part, page in enumerate(pages):
        if page.member != member:
            outline, member = Outline(), page.member
        outline.turn(page.text, page.headings)
        chunks: list[StoredChunk] = []
        for span in split_text(
            page.text, chunk_size=size, chunk_overlap=overlap, count_tokens=count_tokens, by_line=page.by_line
        ):
            text = page.text[span.start : span.end]
            source = f"{file.source}/{page.member}" if page.member else file.source
            metadata: dict[str, str | int] = {"source": source, "path": file.path, "part": part}
            metadata |= {"start": span.start, "end": span.end, "chunk": number, "file_hash": file.hash}
            if page.number is not None:
                metadata["page"] = page.number
            if page.member is not None:
                metadata["member"] = page.member
            if heading := outline.at(span.start):
                metadata["heading"] = HEADING_SEPARATOR.join(heading)
            key = hashlib.sha256(f"{file.path}\0{number}\0{text}".encode()).hexdigest()
            chunks.append(StoredChunk(key, text, metadata))
            number += 1
        yield page, chunks
