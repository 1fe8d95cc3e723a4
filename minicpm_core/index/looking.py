"""Looks at scanned pages and pictures before anything of them is stored: embeds them, or reads them into text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minicpm_core.index.catalog import Catalog, FileRow, StoredChunk
from minicpm_core.index.discovery import FailedFile
from minicpm_core.index.outline import Page
from minicpm_core.index.page_files import PageFile, may_hold_pages
from minicpm_core.index.page_models import DEMO_PAGE_EMBEDDINGS, PageEmbedder, PageReader, resolve_page_embedder
from minicpm_core.index.pages import (
    HOW_TO_LOOK,
    NO_TEXT_LAYER,
    THUMBNAILS,
    Look,
    can_be_looked_at,
    is_blank,
    page_id,
    unread_pages,
)
from minicpm_core.index.picture_store import PictureStore, recorded_page_embedder
from minicpm_core.index.readers import read_bytes

OnPage = Callable[[str, int, int], None]
"""Takes the name of a file, which of its pages is looked at (from 1), and of how many."""
GIVE_AGAIN = "pass it again as page_model=..."
UNREAD = "unread"
"""Part of a file's record where pages could not be looked at: the next run tries again."""


@dataclass
class Seen:
    """What a file's pages are stored as: text pages, and pictures with their vectors.

    `failed` names pages that the next run looks at again; `unread` are files of an archive that no run can read.
    """

    pages: list[Page]
    pictures: list[StoredChunk] = field(default_factory=list)
    vectors: list[list[float]] = field(default_factory=list)
    failed: list[FailedFile] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    note: str | None = None


class Looking:
    """The looks of one run, made by one model that is loaded for the first page and released after the last.

    Args:
        catalog: of the index.
        directory: the folder of the index.
        store: where pictures go.
        mode: `RagSettings.pages`.
        page_embeddings: see `build_index`.
        page_model: see `build_index`.
        demo: the texts have the demo embeddings, so that the pages get theirs.

    Raises:
        ValueError: an argument that does not go with the mode, or other page embeddings than the recorded ones.
    """

    def __init__(
        self,
        catalog: Catalog,
        directory: Path,
        store: PictureStore,
        mode: str,
        page_embeddings: str | Path | PageEmbedder | None,
        page_model: Any,
        *,
        demo: bool,
    ) -> None:
        self.catalog, self.store, self.mode = catalog, store, mode
        self._embedder: PageEmbedder | None = None
        self._reader: PageReader | None = None
        self.by_name = True
        if mode == "text":
            if page_embeddings is not None:
                raise ValueError("page_embeddings embed pages as pictures; set pages to 'image' or 'auto' for it")
            recorded = catalog.get("page_model")
            if page_model is not None:
                self._reader = PageReader(page_model)
                self.by_name = self._reader.by_name
            elif recorded is not None:
                self.by_name = catalog.get("page_model_kind") == "name"
                self._reader = PageReader(recorded) if self.by_name else None
            self.name = self._reader.name if self._reader else recorded or ""
        else:
            if page_model is not None:
                raise ValueError(f"page_model reads pages into text, which pages={mode!r} does not do; leave it out")
            if not store.count():
                catalog_name = None if page_embeddings is not None else catalog.get("page_embeddings")
                if catalog_name and catalog.get("page_embeddings_kind") == "name":
                    page_embeddings = catalog_name
                elif page_embeddings is None and demo:
                    page_embeddings = DEMO_PAGE_EMBEDDINGS
                self.name, self._embedder = resolve_page_embedder(page_embeddings)
            else:
                self.name, self._embedder = recorded_page_embedder(catalog, directory, page_embeddings)
            self.by_name = page_embeddings is None or isinstance(page_embeddings, str | Path)
        self._failures: dict[str, list[FailedFile]] = {}

    @property
    def takes_pictures(self) -> bool:
        """Whether files that are pictures are indexed."""
        return self.mode != "text" or bool(self.name)

    def record(self) -> dict[str, str]:
        """Return what the catalog keeps of the model."""
        kind = "name" if self.by_name else "object"
        key = "page_model" if self.mode == "text" else "page_embeddings"
        return {key: self.name, f"{key}_kind": kind} if self.name else {}

    def reads(self, path: Path) -> bool:
        """Tell whether a file is read by `see`: pictures and PDFs, and archives where there is a model to look."""
        return can_be_looked_at(path) or (bool(self.name) and may_hold_pages(path))

    def splitting(self, path: Path, plain: str) -> str:
        """Return what the record of a file says about the way it was cut and looked at."""
        return f"{plain}/{self.mode}:{self.name}" if self.name and may_hold_pages(path) else plain

    def look_at_all(
        self, sources: Mapping[Path, str], rows: Mapping[str, FileRow], plain: str, texts: Any, on_page: OnPage
    ) -> None:
        """Look at the pages of new and changed files; then the model is released.

        Args:
            sources: names of all files.
            rows: their records.
            plain: see `splitting`.
            texts: the text embeddings, which are released before the first page.
            on_page: is told before each page; what it raises ends the run, which keeps the pages that were looked at.
        """
        begun = False

        def begin() -> None:
            nonlocal begun
            if not begun and callable(release := getattr(texts, "release", None)):
                release()
            begun = True

        for file, source in sources.items():
            if not self.reads(file):
                continue
            try:
                data = read_bytes(file)
                digest = hashlib.sha256(data).hexdigest()
                row = rows.get(str(file))
                if row is None or (row.hash, row.splitting) != (digest, self.splitting(file, plain)):
                    self.look(file, source, data, digest, begin, on_page)
            except (ValueError, OSError, ImportError):
                continue  # told when the file is read to be stored
        self.release()

    def look(
        self, path: Path, source: str, data: bytes, digest: str, begin: Callable[[], None], on_page: OnPage
    ) -> None:
        """Look at the pages of a file that were not looked at before; failures are told by `see`.

        Args:
            path: of the file.
            source: its name.
            data: its contents.
            digest: their SHA-256.
            begin: called before the model is used.
            on_page: called before each page.

        Raises:
            ValueError: the file is damaged.
        """
        failed = self._failures[str(path)] = []
        if not self.name:
            return
        file = PageFile(data, path.suffix)
        known = self.store.looks(str(path), digest, self.name)
        looks = file.find(self.mode)[1]
        for n, look in enumerate(looks, start=1):
            on_page(source, n, len(looks))
            place = source if look.member is None else f"{source}/{look.member}"
            place += "" if look.number is None else f", page {look.number}"
            thumbnail = self.store.folder / f"{page_id(str(path), look.part, digest)}.jpg"
            done = look.part in known
            if done and (self._embedder is None or not known[look.part] or thumbnail.is_file()):
                continue
            try:
                page = file.render(look)
                seen = known[look.part] if done else self._see(page, begin)
                if self._embedder is not None and seen:
                    self.store.keep(thumbnail.stem, page)
            except Exception as error:  # one page, or its model's failure with it, does not stop the others
                failed.append(FailedFile(place, f"could not be looked at: {error}"))
                continue
            self.store.add_look(str(path), digest, look.part, self.name, seen)

    def _see(self, page: Any, begin: Callable[[], None]) -> str:
        if is_blank(page):
            return ""
        begin()
        if self._embedder is not None:
            return json.dumps([float(value) for value in self._embedder.embed_images([page])[0]])
        if self._reader is None:
            raise ValueError(f"the index was read by {self.name!r}; {GIVE_AGAIN}")
        return self._reader.read(page)

    def see(self, path: Path, source: str, data: bytes, digest: str) -> Seen:
        """Return what the file's pages are stored as.

        Raises:
            ValueError: nothing of the file can be stored.
        """
        pages, looks, failed = PageFile(data, path.suffix).find(self.mode)
        if not self.name:
            unread = unread_pages(data, looks)
            if not any(page.text.strip() for page in pages):
                raise ValueError(NO_TEXT_LAYER if unread else "is empty")
            shown = ", ".join(map(str, unread[:10])) + (" ..." if len(unread) > 10 else "")
            note = (
                f"{source}: {len(unread)} pages without a text layer were not read ({shown}); {HOW_TO_LOOK.rstrip(',')}"
            )
            return Seen(pages, note=note if unread else None)
        known = self.store.looks(str(path), digest, self.name)
        seen = Seen(pages, failed=self._failures.get(str(path), []), unread=failed)
        read: dict[tuple[str | None, int | None], Page] = {}
        for look in looks:
            found = known.get(look.part)
            if not found:
                continue
            if self.mode == "text":
                read[look.member, look.number] = Page(look.number, found, (), member=look.member)
            else:
                seen.pictures.append(self._picture(path, source, digest, look))
                seen.vectors.append(json.loads(found))
        seen.pages = [read.pop((page.member, page.number), page) for page in pages] + list(read.values())
        if not seen.pictures and not any(page.text.strip() for page in seen.pages):
            reasons = [page.reason for page in seen.failed] + [f"{name} {reason}" for name, reason in failed]
            raise ValueError(reasons[0] if reasons else "is empty")
        return seen

    def _picture(self, path: Path, source: str, digest: str, look: Look) -> StoredChunk:
        key = page_id(str(path), look.part, digest)
        metadata: dict[str, Any] = {"source": source, "path": str(path), "part": look.part, "file_hash": digest}
        metadata |= {} if look.member is None else {"source": f"{source}/{look.member}", "member": look.member}
        metadata |= {"thumbnail": f"{THUMBNAILS}/{key}.jpg"}
        metadata |= {} if look.number is None else {"page": look.number}
        return StoredChunk(key, look.text, metadata)

    def release(self) -> None:
        """Free the memory of the model."""
        for model in (self._embedder, self._reader):
            if callable(release := getattr(model, "release", None)):
                release()
