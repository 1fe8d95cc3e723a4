"""A collection of the page: a folder with its name, copies of its files, and their index."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "collection.json"


@dataclass(frozen=True)
class Limits:
    """What an upload may be: megabytes (2**20 bytes) of a file, and files at a time."""

    megabytes: int = 100
    count: int = 50


@dataclass(frozen=True)
class Collection:
    """A collection.

    Args:
        id: names its folder.
        name: as it is shown.
        folder: of its record, the copies of its files and its index.
        chroma_url: of the index, where a Chroma server holds it; the folder of the index is then a copy of its records.
    """

    id: str
    name: str
    folder: Path
    chroma_url: str | None = None

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

    @property
    def place(self) -> dict[str, Any]:
        """The arguments of `build_index` and `Index.open` that say where the index is."""
        return {"persist_directory": self.index_folder, "chroma_url": self.chroma_url}

    def holds(self, file: Path) -> bool:
        """Tell whether a file is one of its copies."""
        return file.parent == self.documents.resolve()

    def file_names(self) -> list[str]:
        """Return the names of the files, sorted."""
        return sorted(path.name for path in self.documents.iterdir() if path.is_file())


def read_collection(record: Path) -> Collection | None:
    """Return the collection of a record; None where it is half written, or none of ours."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        return Collection(record.parent.name, str(known["name"]), record.parent, known.get("chroma_url"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_collection(collection: Collection) -> Collection:
    """Make the folders and the record of a new collection; return it."""
    collection.documents.mkdir(parents=True, exist_ok=True)
    record = {"name": collection.name, "created": time.time()}
    record |= {"chroma_url": collection.chroma_url} if collection.chroma_url else {}
    (collection.folder / RECORD).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    return collection


class Ended(Exception):
    """A file was not added, since the library is closed or its collection deleted."""
