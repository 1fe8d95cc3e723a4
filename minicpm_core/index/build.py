"""Brings an index up to date with folders and files."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from minicpm_core.index.catalog import CATALOG_NAME, FORMAT_VERSION, Catalog, FileRow
from minicpm_core.index.cutting import splitting_name
from minicpm_core.index.discovery import FailedFile, Found, find_files, name_sources
from minicpm_core.index.embedders import DEMO_EMBEDDINGS, Embedder, resolve_embedder
from minicpm_core.index.lock import LOCK_NAME, writer_lock
from minicpm_core.index.progress import Pace, Progress
from minicpm_core.index.readers import ACCEPTED_TYPES, read_bytes, read_parts
from minicpm_core.index.recorded import resolve_recorded
from minicpm_core.index.store import CHROMA_NAME, close_chroma, empty_collection, open_chroma
from minicpm_core.index.writing import Writer
from minicpm_core.rag import RagSettings


@dataclass(frozen=True)
class IndexReport:
    """What a run of `build_index` did, by the names under which files are stored.

    Args:
        skipped: files in the folders of a type that is not read.
        failed: files that could not be read, with the reason; of one indexed before, the earlier passages stay.
        chunks: passages now in the index.
        notes: sentences about what else was noticed: another way to cut passages, an index that had to be mended.
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[FailedFile, ...]
    chunks: int
    seconds: float
    notes: tuple[str, ...] = ()


def build_index(
    paths: str | Path | Iterable[str | Path],
    *,
    persist_directory: str | Path,
    embeddings: str | Path | Embedder | None = None,
    settings: RagSettings | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Index files and folders, or bring an index up to date: what has not changed is not read into it again.

    A file that is gone from a folder given now or earlier is removed, as long as that folder itself is still there; so
    is one that is given by its name and gone. All other files stay. A file that cannot be read is reported and does not
    stop the others. Files are split anew when their content or the settings' chunk_size or chunk_overlap have changed;
    passages are never longer than the embedding model reads.

    A run that is ended, even by kill -9, loses no file that was finished; the next one goes on with the one in work.

    Args:
        paths: a file or folder, or several; folders are read with everything below them except hidden files.
        persist_directory: the folder of the index.
        embeddings: a sentence-transformers name, "demo", or an object with embed_documents and embed_query. None takes
            those of the index, for a new one DEFAULT_EMBEDDINGS.
        settings: None takes those of the index, for a new one the defaults (`RagSettings.demo()` with "demo").
        on_progress: called after every file and every batch of passages.

    Raises:
        ValueError: nothing could be indexed and the index is empty, or other embeddings made the index.
        RuntimeError: another run is writing to the index.
    """
    started = time.perf_counter()
    directory = Path(persist_directory).expanduser().resolve()
    found = find_files(paths, ignore=directory)
    directory.mkdir(parents=True, exist_ok=True)
    with writer_lock(directory):
        catalog = Catalog(directory)
        try:
            return _Build(directory, catalog, embeddings, settings, on_progress).run(found, started)
        finally:
            made = catalog.get("embeddings") is not None
            catalog.close()
            if not made:  # what is left of a first run that failed is no index
                shutil.rmtree(directory / CHROMA_NAME, ignore_errors=True)
                for name in (CATALOG_NAME, LOCK_NAME):
                    (directory / name).unlink(missing_ok=True)


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
        recorded = catalog.get("embeddings")
        self.fresh = recorded is None or not catalog.files()
        if recorded is None or (self.fresh and embeddings is not None):
            self.name, self.embedder = resolve_embedder(embeddings)
        else:
            self.name, self.embedder = resolve_recorded(catalog, recorded, directory, embeddings)
        stored = catalog.get("settings") if recorded == self.name else None
        self.earlier = RagSettings.from_dict(json.loads(stored)) if stored else None
        defaults = RagSettings.demo() if self.name == DEMO_EMBEDDINGS else RagSettings()
        self.settings = settings or self.earlier or defaults
        self.splitting = splitting_name(self.settings)
        self.by_name = embeddings is None or isinstance(embeddings, str | Path)
        self.failed: list[FailedFile] = []
        self.recut = 0

    def run(self, found: Found, started: float) -> IndexReport:
        self.client, collection = open_chroma(self.directory)
        try:
            if self.fresh:
                collection = empty_collection(self.client)
            self.writer = Writer(self.directory, self.catalog, collection, self.embedder, self.name, self.settings)
            notes = self.writer.settle()
            values = {"settings": json.dumps(self.settings.to_dict(), ensure_ascii=False)}
            if self.fresh:
                self.writer.begin_index(values | {"format": FORMAT_VERSION}, by_name=self.by_name)
            else:
                self.catalog.set(values)
            self.catalog.add_roots(found.roots)
            removed = self._remove_deleted(found)
            added, updated, unchanged = self._add(found)
            self.writer.leave()
        finally:
            close_chroma(self.client)
        report = IndexReport(
            added=tuple(added),
            updated=tuple(updated),
            unchanged=tuple(unchanged),
            removed=tuple(removed),
            skipped=found.skipped,
            failed=(*found.failed, *self.failed),
            chunks=self.catalog.count(),
            seconds=time.perf_counter() - started,
            notes=(*notes, *self._splitting_notes()),
        )
        if not report.chunks and not removed:
            raise ValueError(_nothing_indexed(report))
        return report

    def _remove_deleted(self, found: Found) -> list[str]:
        roots = [root for root in self.catalog.roots() if root.is_dir()]
        given = {path for path in found.missing if path.parent.is_dir()}
        removed = []
        rows = self.catalog.files()
        for path, row in rows.items():
            file = Path(path)
            if not file.exists() and (file in given or any(file.is_relative_to(root) for root in roots)):
                self.writer.remove(path)
                removed.append(row.source)
        gone = [path for path in found.missing if str(path) not in rows or path not in given]
        self.failed += [FailedFile(str(path), "does not exist; check the path") for path in gone]
        return removed

    def _add(self, found: Found) -> tuple[list[str], list[str], list[str]]:
        added: list[str] = []
        updated: list[str] = []
        unchanged: list[str] = []
        rows = self.catalog.files()
        names = name_sources(found.files, {row.source: path for path, row in rows.items()})
        sources = dict(sorted(names.items(), key=lambda item: item[1]))
        pace = Pace({source: self._weight(file, rows.get(str(file))) for file, source in sources.items()})
        for done, (file, source) in enumerate(sources.items()):
            row = rows.get(str(file))
            pace.begin_file()
            self._report(pace.at(done))
            try:
                stat = file.stat()
                data = read_bytes(file)
                digest = hashlib.sha256(data).hexdigest()
                if row is not None and (row.hash, row.splitting) == (digest, self.splitting):
                    unchanged.append(source)
                    continue
                parts = read_parts(data, file.suffix)
            except (ValueError, OSError, ImportError) as error:
                reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
                kept = "; what was indexed of it earlier is kept" if row else ""
                self.failed.append(FailedFile(source, reason + kept))
                continue
            self.recut += row is not None and row.hash == digest
            if row is not None:
                self.writer.remove(str(file))
            entry = FileRow(str(file), source, digest, self.splitting, 0, stat.st_size, stat.st_mtime)
            before = pace.chunks
            for chunks, share in self.writer.store(entry, parts.pages):
                pace.chunks += chunks
                self._report(pace.at(done, share))
            self.failed += [FailedFile(f"{source}/{member}", reason) for member, reason in parts.failed]
            pace.end_file(source)
            if pace.chunks > before:
                (updated if row else added).append(source)
        if sources:
            self._report(pace.at(len(sources)))
        return added, updated, unchanged

    def _weight(self, file: Path, row: FileRow | None) -> int:
        try:
            stat = file.stat()
        except OSError:
            return 0
        same = row is not None and (row.size, row.mtime, row.splitting) == (stat.st_size, stat.st_mtime, self.splitting)
        return 0 if same else max(stat.st_size, 1)

    def _report(self, progress: Progress) -> None:
        if self.on_progress is not None:
            self.on_progress(progress)

    def _splitting_notes(self) -> list[str]:
        if not self.recut:
            return []
        old, new = self.earlier, self.settings
        files = f"{self.recut} unchanged file{'s were' if self.recut > 1 else ' was'} split anew: "
        if old is None or (old.chunk_size, old.chunk_overlap) == (new.chunk_size, new.chunk_overlap):
            return [files + "this version of the package cuts passages in another way than the one that made the index"]
        return [
            f"{files}chunk_size and chunk_overlap are {new.chunk_size} and {new.chunk_overlap} tokens, and were "
            f"{old.chunk_size} and {old.chunk_overlap}"
        ]


def _nothing_indexed(report: IndexReport) -> str:
    reasons = [f"{failed.source} {failed.reason}" for failed in report.failed]
    reasons += [f"{source} is of a type that is not read" for source in report.skipped]
    told = "; ".join(reasons[:10]) or "the folders hold no files"
    more = f"; and {len(reasons) - 10} more" if len(reasons) > 10 else ""
    return f"nothing could be indexed (accepted are {ACCEPTED_TYPES}): {told}{more}"
