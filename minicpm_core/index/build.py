"""Brings an index up to date with folders and files."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from minicpm_core.index.catalog import CATALOG_NAME, FORMAT_VERSION, Catalog, FileRow
from minicpm_core.index.cutting import splitting_name
from minicpm_core.index.discovery import FailedFile, Found, find_files, name_sources
from minicpm_core.index.embedders import DEMO_EMBEDDINGS, Embedder, resolve_embedder
from minicpm_core.index.faults import explaining
from minicpm_core.index.lock import LOCK_NAME, writer_lock
from minicpm_core.index.looking import UNREAD, Looking, Seen
from minicpm_core.index.page_models import PageEmbedder
from minicpm_core.index.pages import is_picture_file
from minicpm_core.index.picture_store import PictureStore
from minicpm_core.index.place import locate, open_catalog
from minicpm_core.index.progress import Pace, Progress, weigh
from minicpm_core.index.readers import Parts, read_bytes, read_parts
from minicpm_core.index.recorded import read_settings, resolve_recorded
from minicpm_core.index.report import IndexReport, describe_nothing, describe_recut
from minicpm_core.index.spread import FileTask, MapFiles, SpreadEmbedder
from minicpm_core.index.store import CHROMA_NAME, close_chroma, empty_collection, open_chroma
from minicpm_core.index.writing import Writer
from minicpm_core.rag import RagSettings


@explaining
def build_index(
    paths: str | Path | Iterable[str | Path],
    *,
    persist_directory: str | Path | None = None,
    chroma_url: str | None = None,
    chroma_token: str | None = None,
    embeddings: str | Path | Embedder | None = None,
    settings: RagSettings | None = None,
    pages: Literal["text", "image", "auto"] | None = None,
    page_embeddings: str | Path | PageEmbedder | None = None,
    page_model: Any = None,
    on_progress: Callable[[Progress], None] | None = None,
    map_files: MapFiles | None = None,
) -> IndexReport:
    """Index files and folders, or bring an index up to date: what has not changed is not read into it again.

    A file that is gone from a folder given now or earlier is removed, as long as that folder itself is still there; so
    is one that is given by its name and gone. All other files stay. A file that cannot be read is reported and does not
    stop the others. Files are split anew when their content or the settings' chunk_size or chunk_overlap have changed;
    passages are never longer than the embedding model reads.

    Pages are looked at before anything is stored: what looks at them is released before the embeddings load. A page
    that cannot be rendered is reported, the others are stored, and the next run tries it again.

    A run that is ended, even by kill -9, loses no file that was finished; the next one goes on with the one in work.

    Args:
        paths: a file or folder, or several; folders are read with everything below them except hidden files.
        persist_directory: the folder of the index; with `chroma_url` that of this machine's copy of its records.
        chroma_url: a Chroma server that holds the index, with the name of the index: "http://localhost:8000/contracts".
            Pages are stored by their text there, not as pictures.
        chroma_token: sent to it as `Authorization: Bearer`; None takes $MINICPM_CHROMA_TOKEN, if it is set.
        embeddings: a sentence-transformers name, "demo", or an object with embed_documents and embed_query. None takes
            those of the index, for a new one DEFAULT_EMBEDDINGS.
        settings: None takes those of the index, for a new one the defaults (`RagSettings.demo()` with "demo").
        pages: how scanned pages and pictures are indexed, instead of `settings.pages`; see there.
        page_embeddings: for "image" and "auto": a folder or hub id of VisRAG-Ret or of a CLIP model for
            sentence-transformers, "demo", or an object with embed_images and embed_query. None takes those of the
            index, for a new one DEFAULT_PAGE_EMBEDDINGS ("demo" with the demo embeddings).
        page_model: for "text": what reads pages without a text layer: a vision model's folder or hub id, an engine, or
            a function from a picture to its text. None takes that of the index, if there is one.
        on_progress: called after every file and every batch of passages.
        map_files: spreads the reading, cutting and embedding of files over other processes, here or on other machines
            that see the same paths: a function like the built-in `map`, such as an `Executor`'s. This process stores.

    Raises:
        ValueError: nothing could be indexed and the index is empty, or other embeddings made the index.
        RuntimeError: another run is writing to the index.
        ConnectionError: the Chroma server does not answer, for a minute where it did before.
        PermissionError: it does not take the token.
        IndexStorageError: the disk is full or read-only, or the folder of the index is gone.
        IndexDamagedError: files of the index are damaged.
        IndexLockedError: another program holds a lock on its files.
    """
    started = time.perf_counter()
    directory, server = locate(persist_directory, chroma_url, chroma_token)
    found = find_files(paths, ignore=directory)
    directory.mkdir(parents=True, exist_ok=True)
    with writer_lock(directory):
        catalog = open_catalog(directory, server, make=True)
        try:
            looks = (pages, page_embeddings, page_model)
            with catalog.writing():
                build = _Build(directory, catalog, embeddings, settings, on_progress, map_files)
                return build.run(found, started, *looks)
        finally:
            made = _has_files(catalog)
            catalog.close()
            if not made:  # what is left of a first run that failed is no index
                shutil.rmtree(directory / CHROMA_NAME, ignore_errors=True)
                for name in (CATALOG_NAME, LOCK_NAME):
                    (directory / name).unlink(missing_ok=True)


def _has_files(catalog: Catalog) -> bool:
    try:
        return catalog.get("embeddings") is not None
    except sqlite3.Error:  # it was one, before it was damaged
        return True


class _Build:
    """One run of `build_index`."""

    def __init__(
        self,
        directory: Path,
        catalog: Catalog,
        embeddings: str | Path | Embedder | None,
        settings: RagSettings | None,
        on_progress: Callable[[Progress], None] | None,
        map_files: MapFiles | None,
    ) -> None:
        self.directory = directory
        self.catalog = catalog
        self.on_progress, self.map_files = on_progress, map_files
        recorded = catalog.get("embeddings")
        self.fresh = recorded is None or not catalog.files()
        if recorded is None or (self.fresh and embeddings is not None):
            self.name, self.embedder = resolve_embedder(embeddings)
        else:
            self.name, self.embedder = resolve_recorded(catalog, recorded, directory, embeddings)
        stored = catalog.get("settings") if recorded == self.name else None
        self.earlier = read_settings(directory, stored) if stored else None
        defaults = RagSettings.demo() if self.name == DEMO_EMBEDDINGS else RagSettings()
        self.settings = settings or self.earlier or defaults
        self.splitting = splitting_name(self.settings)
        self.by_name = embeddings is None or isinstance(embeddings, str | Path)
        self.failed: list[FailedFile] = []
        self.recut = 0
        self.notes: list[str] = []

    def run(
        self,
        found: Found,
        started: float,
        pages: Literal["text", "image", "auto"] | None,
        page_embeddings: str | Path | PageEmbedder | None,
        page_model: Any,
    ) -> IndexReport:
        if pages is not None:
            self.settings = replace(self.settings, pages=pages)
        self.catalog.check(self.settings)
        self.client, collection = open_chroma(self.directory, self.catalog.server)
        try:
            if self.fresh:
                self.catalog.empty()
                collection = empty_collection(self.client, self.catalog.server)
            pictures = PictureStore(self.directory, self.catalog, self.client)
            demo = self.name == DEMO_EMBEDDINGS
            given = (self.settings.pages, page_embeddings, page_model)
            self.looking = Looking(self.catalog, self.directory, pictures, *given, demo=demo)
            self.writer = Writer(
                self.directory, self.catalog, collection, self.embedder, self.name, self.settings, pictures
            )
            notes = self.writer.settle()
            if not pictures.count():
                pictures.forget_all()
            values = {"settings": json.dumps(self.settings.to_dict(), ensure_ascii=False)}
            if self.fresh:
                self.writer.begin_index(values | {"format": FORMAT_VERSION}, by_name=self.by_name)
            else:
                self.catalog.set(values)
            self.catalog.set(self.looking.record())
            self.catalog.add_roots(found.roots)
            removed = self._remove_deleted(found)
            if not self.looking.takes_pictures:
                found = found.without_pictures()
                removed += self._remove_pictures(notes)
            added, updated, unchanged = self._add(found)
            pictures.settle(thorough=False)
            shown = pictures.count()
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
            notes=(*notes, *self.notes, *describe_recut(self.recut, self.earlier, self.settings)),
            pages=shown,
        )
        if not report.chunks and not report.pages and not removed:
            raise ValueError(describe_nothing(report))
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
                self.looking.store.forget_looks(path, None)
                removed.append(row.source)
        gone = [path for path in found.missing if str(path) not in rows or path not in given]
        self.failed += [FailedFile(str(path), "does not exist; check the path") for path in gone]
        return removed

    def _remove_pictures(self, notes: list[str]) -> list[str]:
        """Take pictures out of an index that is told to hold text only."""
        rows = {path: row for path, row in self.catalog.files().items() if is_picture_file(path)}
        for path in rows:
            self.writer.remove(path)
            self.looking.store.forget_looks(path, None)
        if rows:
            notes.append(f"{len(rows)} pictures have left the index: pages is 'text', and no page_model reads them")
        return [row.source for row in rows.values()]

    def _splitting(self, file: Path) -> str:
        return self.looking.splitting(file, self.splitting)

    def _add(self, found: Found) -> tuple[list[str], list[str], list[str]]:
        added: list[str] = []
        updated: list[str] = []
        unchanged: list[str] = []
        rows = self.catalog.files()
        names = name_sources(found.files, {row.source: path for path, row in rows.items()})
        sources = dict(sorted(names.items(), key=lambda item: item[1]))
        self.looking.look_at_all(sources, rows, self.splitting, self.embedder)
        pace = Pace(
            {source: weigh(file, rows.get(str(file)), self._splitting(file)) for file, source in sources.items()}
        )
        spread = self._spread(sources, rows)
        for done, (file, source) in enumerate(sources.items()):
            row = rows.get(str(file))
            pace.begin_file()
            self._report(pace.at(done))
            if spread is not None:
                spread.reach(str(file))
            try:
                stat = file.stat()
                data = read_bytes(file)
                digest = hashlib.sha256(data).hexdigest()
                if row is not None and (row.hash, row.splitting) == (digest, self._splitting(file)):
                    unchanged.append(source)
                    continue
                seen: Seen | None = None
                if self.looking.reads(file):
                    seen = self.looking.see(file, source, data, digest)
                    parts = Parts(seen.pages, seen.unread)
                else:
                    parts = read_parts(data, file.suffix)
            except (ValueError, OSError, ImportError) as error:
                reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
                kept = "; what was indexed of it earlier is kept" if row else ""
                self.failed.append(FailedFile(source, reason + kept))
                continue
            self.recut += row is not None and row.hash == digest and not row.splitting.endswith(f"/{UNREAD}")
            if row is not None:
                self.writer.remove(str(file))
            splitting = f"{self._splitting(file)}/{UNREAD}" if seen and seen.failed else self._splitting(file)
            entry = FileRow(str(file), source, digest, splitting, 0, stat.st_size, stat.st_mtime)
            before = pace.chunks
            looked = (seen.pictures, seen.vectors) if seen else ((), ())
            for chunks, share in self.writer.store(entry, parts.pages, *looked):
                pace.chunks += chunks
                self._report(pace.at(done, share))
            self.failed += [FailedFile(f"{source}/{member}", reason) for member, reason in parts.failed]
            if seen:
                self.failed += seen.failed
                self.notes += [seen.note] if seen.note else []
            self.looking.store.forget_looks(str(file), digest)
            pace.end_file(source)
            if pace.chunks > before or (seen and seen.pictures):
                (updated if row else added).append(source)
        if sources:
            self._report(pace.at(len(sources)))
        return added, updated, unchanged

    def _spread(self, files: Iterable[Path], rows: Mapping[str, FileRow]) -> SpreadEmbedder | None:
        if self.map_files is None:
            return None
        named = self.name if self.by_name else self.embedder
        known = {path: row.hash for path, row in rows.items() if row.splitting == self._splitting(Path(path))}
        tasks = [FileTask(str(file), known.get(str(file)), self.settings, named) for file in files]
        self.writer.embedder = spread = SpreadEmbedder(self.embedder, tasks, self.map_files)
        return spread

    def _report(self, progress: Progress) -> None:
        if self.on_progress is not None:
            self.on_progress(progress)
