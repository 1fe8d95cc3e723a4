"""The collections of the page: each a folder with its name, copies of its files, and their index."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minicpm_app.web.texts import say
from minicpm_core.rag import Language

if TYPE_CHECKING:
    from minicpm_core.index import Index, Progress

MOST_COLLECTIONS = 200
MOST_FILES = 1000
"""In a collection."""
_RECORD = "collection.json"


@dataclass(frozen=True)
class Limits:
    """What an upload may be: megabytes (2**20 bytes) of a file, and files at a time."""

    megabytes: int = 100
    count: int = 50


@dataclass(frozen=True)
class Collection:
    """A collection; `id` names its folder."""

    id: str
    name: str
    folder: Path

    @property
    def documents(self) -> Path:
        """The folder with the copies of the files."""
        return self.folder / "files"

    @property
    def incoming(self) -> Path:
        """The folder of files that are on their way."""
        return self.folder / "incoming"

    @property
    def index_folder(self) -> Path:
        """The folder of the index."""
        return self.folder / "index"

    def file_names(self) -> list[str]:
        """Return the names of the files, sorted."""
        return sorted(path.name for path in self.documents.iterdir() if path.is_file())


class Ended(Exception):
    """A file was not added, since the library is closed or its collection deleted."""


class Library:
    """All collections under a folder; safe to use from several threads.

    Args:
        folder: made if it is not there.
        embeddings: those of new indexes; None is the default of `build_index`.
        limits: of uploads.
    """

    def __init__(self, folder: Path, embeddings: str | None = None, limits: Limits | None = None) -> None:
        self.folder = folder
        self.limits = limits or Limits()
        self._embeddings = embeddings
        self._lock = threading.RLock()
        self._writing: dict[str, threading.Lock] = {}
        self._open: dict[str, Index] = {}
        self._closed = False
        self._deleted: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def collections(self) -> list[Collection]:
        """Return all collections, by name."""
        found = []
        for record in self.folder.glob(f"*/{_RECORD}"):
            try:
                name = str(json.loads(record.read_text(encoding="utf-8"))["name"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # half written, or none of ours
            found.append(Collection(record.parent.name, name, record.parent))
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
            collection = Collection(id_ := secrets.token_hex(8), name, self.folder / id_)
            collection.documents.mkdir(parents=True)
            record = json.dumps({"name": name, "created": time.time()}, ensure_ascii=False)
            (collection.folder / _RECORD).write_text(record, encoding="utf-8")
            return collection

    def obtain(self, name: str, language: Language) -> Collection:
        """Return the collection with a name, a new one where there is none.

        Raises:
            ValueError: as of `create`.
        """
        with self._lock:
            known = (collection for collection in self.collections() if collection.name == name)
            return next(known, None) or self.create(name, language)

    def delete(self, collection: Collection) -> None:
        """Delete a collection with its files and its index; what is being added to it is given up."""
        self._deleted.add(collection.id)
        with self._lock_of(collection):
            self._forget(collection)
            (collection.folder / _RECORD).unlink(missing_ok=True)
            shutil.rmtree(collection.folder, ignore_errors=True)

    def check(self, collection: Collection, file: Path, language: Language) -> str | None:
        """Return why an uploaded file is not accepted, None where it is."""
        from minicpm_core.index.readers import is_readable_type

        if not is_readable_type(file):
            return say(language, "wrong_kind", kinds=accepted_kinds())
        if file.stat().st_size > self.limits.megabytes * 2**20:
            return say(language, "too_large", size=self.limits.megabytes)
        names = collection.file_names()
        if file.name not in names and len(names) >= MOST_FILES:
            return say(language, "full", count=MOST_FILES)
        return None

    def add(self, collection: Collection, file: Path, on_progress: Callable[[Progress], None]) -> None:
        """Copy a file into a collection and index it; one of the same name is replaced.

        Raises:
            ValueError: it cannot be read; the collection is as it was before.
            Ended: the library was closed or the collection deleted meanwhile; likewise.
        """
        from minicpm_core.index import build_index

        def show(progress: Progress) -> None:
            self._go_on(collection)
            on_progress(progress)

        target = collection.documents / file.name
        with self._lock_of(collection):
            self._go_on(collection)
            earlier = target.read_bytes() if target.exists() else None
            shutil.copyfile(file, target)
            try:
                report = build_index(
                    target,
                    persist_directory=collection.index_folder,
                    embeddings=None if collection.id in self._open else self._new_embeddings(collection),
                    on_progress=show,
                )
                if report.failed and not (report.added or report.updated or report.unchanged):
                    raise ValueError(report.failed[0].reason)
            except BaseException as error:
                if earlier is None:
                    target.unlink(missing_ok=True)
                else:
                    target.write_bytes(earlier)
                if isinstance(error, ValueError):
                    raise ValueError(_reason(str(error), file.name)) from error
                raise

    def remove(self, collection: Collection, name: str) -> None:
        """Delete a file of a collection, and its passages."""
        from minicpm_core.index import build_index

        if name not in collection.file_names():
            return
        with self._lock_of(collection):
            (collection.documents / name).unlink(missing_ok=True)
            build_index(collection.documents, persist_directory=collection.index_folder)

    def index(self, collection: Collection) -> Index | None:
        """Return the open index of a collection; None where it has none yet."""
        from minicpm_core.index import Index, recorded_embeddings

        with self._lock:
            if collection.id not in self._open:
                if recorded_embeddings(collection.index_folder) is None:
                    return None
                self._open[collection.id] = Index.open(collection.index_folder)
            return self._open[collection.id]

    def close(self) -> None:
        """Give up what is being added, and close all indexes."""
        self._closed = True
        for writing in list(self._writing.values()):
            with writing:
                pass  # it has ended
        with self._lock:
            for index in self._open.values():
                index.close()
            self._open.clear()

    def _go_on(self, collection: Collection) -> None:
        if self._closed or collection.id in self._deleted:
            raise Ended

    def _new_embeddings(self, collection: Collection) -> str | None:
        from minicpm_core.index import recorded_embeddings

        return self._embeddings if recorded_embeddings(collection.index_folder) is None else None

    def _forget(self, collection: Collection) -> None:
        with self._lock:
            index = self._open.pop(collection.id, None)
        if index:
            index.close()

    def _lock_of(self, collection: Collection) -> threading.Lock:
        with self._lock:
            return self._writing.setdefault(collection.id, threading.Lock())


def accepted_kinds() -> str:
    """Return the endings of the files that can be read."""
    from minicpm_core.index.readers import ACCEPTED_TYPES

    return ACCEPTED_TYPES


def _reason(text: str, name: str) -> str:
    """Return the part of `build_index`'s message that follows the file's name."""
    return text.rpartition(f": {name} ")[2]
