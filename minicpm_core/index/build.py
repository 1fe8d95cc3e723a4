"""Brings an index up to date with folders and files."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minicpm_core.index.catalog import FORMAT_VERSION, Catalog, FileRow, StoredChunk
from minicpm_core.index.discovery import FailedFile, Found, find_files, name_sources
from minicpm_core.index.embedders import DEMO_EMBEDDINGS, EMBED_BATCH, Embedder, measure, resolve_embedder
from minicpm_core.index.readers import ACCEPTED_TYPES, Page, read_bytes, read_pages
from minicpm_core.index.search import check_dimension, resolve_recorded
from minicpm_core.index.splitter import split_text
from minicpm_core.index.store import close_chroma, empty_collection, open_chroma, store_chunks
from minicpm_core.rag import RagSettings

# Part of every file's record: raise it when the splitter or a reader changes, and files are split anew.
_SPLITTING_VERSION = 1
_BUILDING = threading.RLock()


@dataclass(frozen=True)
class Progress:
    """How far `build_index` is: files looked at, of how many, the one at hand, and passages embedded in this run."""

    done: int
    total: int
    source: str
    chunks: int


@dataclass(frozen=True)
class IndexReport:
    """What a run of `build_index` did, by the names under which files are stored.

    Args:
        skipped: files in the folders of a type that is not read.
        failed: files that could not be read, with the reason; of one indexed before, the earlier passages stay.
        chunks: passages now in the index.
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[FailedFile, ...]
    chunks: int
    seconds: float


def build_index(
    paths: str | Path | Iterable[str | Path],
    *,
    persist_directory: str | Path,
    embeddings: str | Path | Embedder | None = None,
    settings: RagSettings | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Index files and folders, or bring an index up to date: what has not changed is not read into it again.

    A file that is gone from a folder given now or earlier is removed, as long as that folder itself is still there. All
    other files stay. A file that cannot be read is reported and does not stop the others. Files are split anew when
    their content or the settings' chunk_size or chunk_overlap have changed; passages are never longer than the
    embedding model reads.

    Args:
        paths: a file or folder, or several; folders are read with everything below them except hidden files.
        persist_directory: the folder of the index.
        embeddings: a sentence-transformers name, "demo", or an object with embed_documents and embed_query. None takes
            those of the index, for a new one DEFAULT_EMBEDDINGS.
        settings: None takes those of the index, for a new one the defaults (`RagSettings.demo()` with "demo").
        on_progress: called after every file and every batch of passages.

    Raises:
        ValueError: nothing could be indexed and the index is empty, or other embeddings made the index.
    """
    started = time.perf_counter()
    directory = Path(persist_directory).expanduser().resolve()
    found = find_files(paths, ignore=directory)
    directory.mkdir(parents=True, exist_ok=True)
    with _BUILDING:
        catalog = Catalog(directory)
        try:
            return _Build(directory, catalog, embeddings, settings, on_progress).run(found, started)
        finally:
            catalog.close()


class _Build:
    """One run of `build_index`."""

    def __init__(
        self,
        directory: Path,
        catalog: Catalog,
        embeddings: str | Path | Embedder | None,
        settings: RagSettings | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.directory = directory
        self.catalog = catalog
        self.on_progress = on_progress
        self.embedded = 0
        recorded = catalog.get("embeddings")
        self.fresh = recorded is None or not catalog.files()
        if recorded is None or (self.fresh and embeddings is not None):
            self.name, self.embedder = resolve_embedder(embeddings)
        else:
            self.name, self.embedder = resolve_recorded(catalog, recorded, directory, embeddings)
        stored = catalog.get("settings") if recorded == self.name else None
        defaults = RagSettings.demo() if self.name == DEMO_EMBEDDINGS else RagSettings()
        self.settings = settings or (RagSettings.from_dict(json.loads(stored)) if stored else defaults)
        self.splitting = f"{self.settings.chunk_size}/{self.settings.chunk_overlap}/{_SPLITTING_VERSION}"
        self.by_name = embeddings is None or isinstance(embeddings, str | Path)

    def run(self, found: Found, started: float) -> IndexReport:
        self.client, self.collection = open_chroma(self.directory)
        try:
            for path in self.catalog.unfinished():
                self._remove(path)
            if self.fresh:
                self.collection = empty_collection(self.client)
                self.catalog.set({"format": FORMAT_VERSION})
            else:
                self._record()
            self.catalog.add_roots(found.roots)
            removed = self._remove_deleted()
            added, updated, unchanged, failed = self._add(found)
        finally:
            close_chroma(self.client)
        report = IndexReport(
            added=tuple(added),
            updated=tuple(updated),
            unchanged=tuple(unchanged),
            removed=tuple(removed),
            skipped=found.skipped,
            failed=(*found.failed, *failed),
            chunks=self.catalog.count(),
            seconds=time.perf_counter() - started,
        )
        if not report.chunks and not removed:
            raise ValueError(_nothing_indexed(report))
        return report

    def _record(self, dimension: int | None = None) -> None:
        values = {
            "embeddings": self.name,
            "settings": json.dumps(self.settings.to_dict(), ensure_ascii=False),
        }
        if dimension is not None:
            values |= {"dimension": str(dimension), "embeddings_kind": "name" if self.by_name else "object"}
        self.catalog.set(values)

    def _remove_deleted(self) -> list[str]:
        roots = [root for root in self.catalog.roots() if root.is_dir()]
        removed = []
        for path, row in self.catalog.files().items():
            file = Path(path)
            if not file.exists() and any(file.is_relative_to(root) for root in roots):
                self.catalog.begin_file(path)
                self._remove(path)
                removed.append(row.source)
        return removed

    def _remove(self, path: str) -> None:
        self.collection.delete(where={"path": path})
        self.catalog.end_file(path, None, [])

    def _add(self, found: Found) -> tuple[list[str], list[str], list[str], list[FailedFile]]:
        added: list[str] = []
        updated: list[str] = []
        unchanged: list[str] = []
        failed: list[FailedFile] = []
        rows = self.catalog.files()
        sources = name_sources(found.files, {row.source: path for path, row in rows.items()})
        for done, (file, source) in enumerate(sorted(sources.items(), key=lambda item: item[1])):
            row = rows.get(str(file))
            self._report(done, len(sources), source)
            try:
                data = read_bytes(file)
                digest = hashlib.sha256(data).hexdigest()
                if row is not None and (row.hash, row.splitting) == (digest, self.splitting):
                    unchanged.append(source)
                    continue
                pages = read_pages(data, file.suffix)
            except (ValueError, OSError) as error:
                reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
                failed.append(FailedFile(source, reason + ("; what was indexed of it earlier is kept" if row else "")))
                continue
            self._store(file, source, digest, pages, (done, len(sources)))
            (updated if row else added).append(source)
        if sources:
            self._report(len(sources), len(sources), "")
        return added, updated, unchanged, failed

    def _store(self, file: Path, source: str, digest: str, pages: Sequence[Page], progress: tuple[int, int]) -> None:
        chunks = self._split(pages, str(file), source, digest)
        self.catalog.begin_file(str(file))
        self.collection.delete(where={"path": str(file)})
        for start in range(0, len(chunks), EMBED_BATCH):
            batch = chunks[start : start + EMBED_BATCH]
            vectors = self.embedder.embed_documents([chunk.text for chunk in batch])
            if self.fresh:
                self._record(len(vectors[0]))
                self.fresh = False
            check_dimension(self.catalog, self.name, len(vectors[0]), self.directory)
            store_chunks(self.collection, batch, vectors)
            self.embedded += len(batch)
            self._report(*progress, source)
        stat = file.stat()
        row = FileRow(str(file), source, digest, self.splitting, len(chunks), stat.st_size, stat.st_mtime)
        self.catalog.end_file(str(file), row, chunks)

    def _split(self, pages: Sequence[Page], path: str, source: str, digest: str) -> list[StoredChunk]:
        count_tokens, longest = measure(self.embedder)
        size = min(self.settings.chunk_size, longest or self.settings.chunk_size)
        chunks: list[StoredChunk] = []
        for page in pages:
            for span in split_text(
                page.text,
                chunk_size=size,
                chunk_overlap=min(self.settings.chunk_overlap, size - 1),
                count_tokens=count_tokens,
            ):
                text = page.text[span.start : span.end]
                metadata: dict[str, str | int] = {"source": source, "path": path, "start": span.start, "end": span.end}
                metadata |= {"chunk": len(chunks), "file_hash": digest}
                if page.number is not None:
                    metadata["page"] = page.number
                key = hashlib.sha256(f"{path}\0{len(chunks)}\0{text}".encode()).hexdigest()
                chunks.append(StoredChunk(key, text, metadata))
        return chunks

    def _report(self, done: int, total: int, source: str) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(done, total, source, self.embedded))


def _nothing_indexed(report: IndexReport) -> str:
    reasons = [f"{failed.source} {failed.reason}" for failed in report.failed]
    reasons += [f"{source} is of a type that is not read" for source in report.skipped]
    told = "; ".join(reasons[:10]) or "the folders hold no files"
    more = f"; and {len(reasons) - 10} more" if len(reasons) > 10 else ""
    return f"nothing could be indexed (accepted are {ACCEPTED_TYPES}): {told}{more}"
