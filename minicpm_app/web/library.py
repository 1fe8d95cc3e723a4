"""The collections of the page under one folder, which one page has at a time."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from minicpm_app.web.collection import RECORD, Collection, Ended, Limits, read_collection, write_collection
from minicpm_app.web.sight import Sight, explain
from minicpm_app.web.texts import say
from minicpm_core.rag import Language

if TYPE_CHECKING:
    from minicpm_core.index import Index, IndexReport, Progress

MOST_COLLECTIONS = 200
MOST_FILES = 1000
"""In a collection."""
_LOCK = "page.lock"
_MOST_NOTES = 5
"""Told of a file."""


class Library:
    """All collections under a folder; safe to use from several threads.

    Args:
        folder: made if it is not there.
        embeddings: those of new indexes; None is the default of `build_index`.
        limits: of uploads.
        sight: how scanned pages and pictures are taken in; can be set later.
        chroma_url: of an index on a Chroma server, which is a collection then.

    Raises:
        RuntimeError: another page has the folder.
        ConnectionError, PermissionError: the Chroma server does not answer, or refuses.
    """

    def __init__(
        self,
        folder: Path,
        embeddings: str | None = None,
        limits: Limits | None = None,
        sight: Sight | None = None,
        chroma_url: str | None = None,
    ) -> None:
        from minicpm_core.index.lock import exclusive

        self.folder = folder
        self.limits = limits or Limits()
        self.sight = sight or Sight()
        self._embeddings = embeddings
        self._lock = threading.RLock()
        self._writing: dict[str, threading.Lock] = {}
        self._open: dict[str, Index] = {}
        self._closed = False
        self._deleted: set[str] = set()
        self._served: str | None = None
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            held.enter_context(exclusive(folder / _LOCK, self._refuse))
            if chroma_url is not None:
                self._serve(chroma_url)
            self._held = held.pop_all()

    def _refuse(self, holder: str) -> str:
        return (
            f"the collections in {self.folder} are in use by another page{holder}; open that one in the browser, end "
            "it, or give another folder with --data"
        )

    def _serve(self, chroma_url: str) -> None:
        """Make the index on a server a collection, and open it where it is there."""
        from minicpm_core.index.chroma_server import ChromaServer

        server = ChromaServer.parse(chroma_url)
        self._served = str(server)
        id_ = hashlib.sha256(self._served.encode()).hexdigest()[:16]
        name = f"{server.name} @ {server.url.partition('://')[2]}"
        self.index(write_collection(Collection(id_, name, self.folder / id_, self._served)))

    def collections(self) -> list[Collection]:
        """Return all collections, by name."""
        read = (read_collection(record) for record in self.folder.glob(f"*/{RECORD}"))
        found = [collection for collection in read if collection and collection.chroma_url in (None, self._served)]
        return sorted(found, key=lambda collection: collection.name.casefold())

    def find(self, id_: str | None) -> Collection | None:
        """Return the collection with an id, or None."""
        return next((collection for collection in self.collections() if collection.id == id_), None)

    def create(self, name: str, language: Language) -> Collection:
        """Return a new, empty collection.

        Raises:
            ValueError: the name is empty, too long or taken, or there are too many.
        """
        name = " ".join(name.split())
        if not 1 <= len(name) <= 80:
            raise ValueError(say(language, "bad_name"))
        with self._lock:
            known = self.collections()
            if any(collection.name.casefold() == name.casefold() for collection in known):
                raise ValueError(say(language, "name_taken", name=name))
            if len(known) >= MOST_COLLECTIONS:
                raise ValueError(say(language, "most_collections", count=MOST_COLLECTIONS))
            return write_collection(Collection(id_ := secrets.token_hex(8), name, self.folder / id_))

    def obtain(self, name: str, language: Language) -> Collection:
        """Return the collection with a name, a new one where there is none.

        Raises:
            ValueError: as of `create`.
        """
        with self._lock:
            known = (collection for collection in self.collections() if collection.name == name)
            return next(known, None) or self.create(name, language)

    def delete(self, collection: Collection) -> None:
        """Delete a collection with its files and its index; what is being added to it is given up.

        Raises:
            ValueError: its index is on a server.
        """
        if collection.chroma_url:
            raise ValueError(f"the index of {collection.name} is on a server; delete it there")
        self._deleted.add(collection.id)
        with self._lock_of(collection):
            self._forget(collection)
            (collection.folder / RECORD).unlink(missing_ok=True)
            shutil.rmtree(collection.folder, ignore_errors=True)

    def check(self, collection: Collection, file: Path, language: Language) -> str | None:
        """Return why an uploaded file is not accepted, None where it is."""
        from minicpm_core.index.pages import is_picture_file
        from minicpm_core.index.readers import ACCEPTED_TYPES, is_readable_type

        if not (is_readable_type(file) or is_picture_file(file)):
            return say(language, "wrong_kind", kinds=ACCEPTED_TYPES)
        if file.stat().st_size > self.limits.megabytes * 2**20:
            return say(language, "too_large", size=self.limits.megabytes)
        names = collection.file_names()
        if file.name not in names and len(names) >= MOST_FILES:
            return say(language, "full", count=MOST_FILES)
        return None

    def add(
        self, collection: Collection, file: Path, language: Language, on_progress: Callable[[Progress], None]
    ) -> str:
        """Copy a file into a collection and index it; one of the same name is replaced.

        Returns:
            What of it could not be read, "" where all was.

        Raises:
            ValueError: it cannot be read; the collection is as it was before.
            Ended: the library was closed or the collection deleted meanwhile; likewise.
        """
        from minicpm_core.index import build_index, recorded_settings

        def show(progress: Progress) -> None:
            self._go_on(collection)
            on_progress(progress)

        target = collection.documents / file.name
        with self._lock_of(collection):
            self._go_on(collection)
            earlier = target.read_bytes() if target.exists() else None
            shutil.copyfile(file, target)
            try:
                known = recorded_settings(**collection.place)
                report = build_index(
                    target,
                    **collection.place,
                    embeddings=self._embeddings if known is None else None,
                    on_progress=show,
                    **self.sight.options(known.pages if known else None, lambda: self._go_on(collection)),
                )
                if report.failed and not (report.added or report.updated or report.unchanged):
                    raise ValueError(report.failed[0].reason)
                return explain(_describe(report, file.name), language)
            except BaseException as error:
                if earlier is None:
                    target.unlink(missing_ok=True)
                else:
                    target.write_bytes(earlier)
                if isinstance(error, ValueError):
                    raise ValueError(explain(_reason(str(error), file.name), language)) from error
                raise

    def remove(self, collection: Collection, name: str) -> None:
        """Delete a file of a collection, and its passages."""
        from minicpm_core.index import build_index

        if name not in collection.file_names():
            return
        with self._lock_of(collection):
            (collection.documents / name).unlink(missing_ok=True)
            build_index(collection.documents / name, **collection.place)

    def index(self, collection: Collection) -> Index | None:
        """Return the open index of a collection; None where it has none yet."""
        from minicpm_core.index import Index, recorded_embeddings

        with self._lock:
            if collection.id not in self._open:
                if recorded_embeddings(**collection.place) is None:
                    return None
                self._open[collection.id] = Index.open(**collection.place)
            return self._open[collection.id]

    def count_elsewhere(self, collection: Collection | None) -> int:
        """Return how many files of an index on a server are not among the copies here."""
        if collection is None or collection.chroma_url is None:
            return 0
        with self._lock:
            index = self._open.get(collection.id)
        return len(set(index.sources()) - set(collection.file_names())) if index else 0

    def close(self) -> None:
        """Give up what is being added, close all indexes, and leave the folder to others."""
        self._closed = True
        for writing in list(self._writing.values()):
            with writing:
                pass  # it has ended
        with self._lock:
            for index in self._open.values():
                index.close()
            self._open.clear()
        self._held.close()

    def _go_on(self, collection: Collection) -> None:
        if self._closed or collection.id in self._deleted:
            raise Ended

    def _forget(self, collection: Collection) -> None:
        with self._lock:
            index = self._open.pop(collection.id, None)
        if index:
            index.close()

    def _lock_of(self, collection: Collection) -> threading.Lock:
        with self._lock:
            return self._writing.setdefault(collection.id, threading.Lock())


def _describe(report: IndexReport, name: str) -> str:
    """Return what of a file could not be read, "" where all was."""
    told = [f"{failed.source} {failed.reason}" for failed in report.failed] + list(report.notes)
    short = [text.removeprefix(name).lstrip(",/: ") for text in told]
    more = f"; … (+{len(short) - _MOST_NOTES})" if len(short) > _MOST_NOTES else ""
    return "; ".join(short[:_MOST_NOTES]) + more


def _reason(text: str, name: str) -> str:
    """Return the part of `build_index`'s message that follows the file's name."""
    return text.partition(f"{name} ")[2] or text
