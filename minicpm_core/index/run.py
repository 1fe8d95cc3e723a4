"""One run of `build_index`: what is gone leaves, what is new or has changed is read, looked at and stored."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from minicpm_core.index.catalog import FORMAT_VERSION, Catalog, FileRow
from minicpm_core.index.cutting import splitting_name
from minicpm_core.index.discovery import FailedFile, Found, name_sources
from minicpm_core.index.embedders import DEMO_EMBEDDINGS, Embedder, resolve_embedder
from minicpm_core.index.looking import UNREAD, Looking, Seen
from minicpm_core.index.page_models import PageEmbedder
from minicpm_core.index.pages import is_picture_file
from minicpm_core.index.picture_store import PictureStore
from minicpm_core.index.progress import Pace, Progress, weigh
from minicpm_core.index.readers import Parts, read_bytes, read_parts
from minicpm_core.index.recorded import read_settings, resolve_recorded
from minicpm_core.index.report import IndexReport, describe_nothing, describe_recut
from minicpm_core.index.spread import FileTask, MapFiles, SpreadEmbedder
from minicpm_core.index.store import close_chroma, empty_collection, open_chroma
from minicpm_core.index.writing import Writer
from minicpm_core.rag import RagSettings


class IndexRun:
    """One run of `build_index`.

    Args:
        directory: the folder of the index, whose writer's lock the caller holds.
        catalog: open, with the right to write to it.
        embeddings: see `build_index`.
        settings: see `build_index`.
        on_progress: see `build_index`.
        map_files: see `build_index`.
    """

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
        """Bring the index up to date with the files that were found; `started` is when that began."""
        self.started = started
        if pages is not None:
            self.settings = replace(self.settings, pages=pages)
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
        self.looking.look_at_all(sources, rows, self.splitting, self.embedder, partial(self._look, len(sources)))
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

    def _look(self, total: int, source: str, page: int, pages: int) -> None:
        self._report(Progress(0, total, source, 0, time.perf_counter() - self.started, page=page, pages=pages))

    def _report(self, progress: Progress) -> None:
        if self.on_progress is not None:
            self.on_progress(progress)
