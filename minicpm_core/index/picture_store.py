"""Pages that are stored as pictures: their records, their vectors in a second Chroma collection, their thumbnails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minicpm_core.index.catalog import Catalog, StoredChunk
from minicpm_core.index.page_models import PageEmbedder, resolve_page_embedder
from minicpm_core.index.pages import THUMBNAIL_SIDE, THUMBNAILS, to_jpeg
from minicpm_core.index.store import (
    delete_ids,
    drop_pictures,
    find_pictures,
    open_pictures,
    similarities,
    store_chunks,
    stored_ids,
)

if TYPE_CHECKING:
    from chromadb import Collection
    from chromadb.api import ClientAPI
    from PIL.Image import Image

_FINISHED = "path NOT IN (SELECT path FROM unfinished)"


class PictureStore:
    """The pictures of one index; the catalog's transactions of a file hold theirs too."""

    def __init__(self, directory: Path, catalog: Catalog, client: ClientAPI) -> None:
        self.folder = directory / THUMBNAILS
        self.catalog, self.client = catalog, client
        self._collection: Collection | None = None

    @property
    def collection(self) -> Collection:
        """The Chroma collection, made at its first use."""
        if self._collection is None:
            self._collection = open_pictures(self.client, self.catalog.server)
        return self._collection

    def count(self) -> int:
        """Return the number of pages of finished files."""
        return int(self.catalog._rows(f"SELECT count(*) FROM pictures WHERE {_FINISHED}")[0][0])

    def ids(self) -> list[str]:
        """Return the ids of all of them."""
        return [str(row[0]) for row in self.catalog._rows(f"SELECT id FROM pictures WHERE {_FINISHED}")]

    def get(self, ids: Sequence[str]) -> dict[str, StoredChunk]:
        """Return pages by their ids; those not stored are left out."""
        found = {}
        for key in ids:
            query = f"SELECT id, text, metadata FROM pictures WHERE id = ? AND {_FINISHED}"
            for row in self.catalog._rows(query, (key,)):
                found[key] = StoredChunk(row[0], row[1], json.loads(row[2]))
        return found

    def add(self, path: str, pages: Sequence[StoredChunk], vectors: Sequence[Sequence[float]]) -> None:
        """Store pages of an unfinished file."""
        self.catalog.add_pictures(path, pages)
        store_chunks(self.collection, pages, vectors)

    def drop(self, path: str) -> None:
        """Delete the vectors of a file."""
        if self._collection is None:
            self._collection = find_pictures(self.client, self.catalog.server)
        if self._collection is not None:
            self._collection.delete(where={"path": path})

    def forget_all(self) -> None:
        """Make room for vectors of another dimension."""
        drop_pictures(self.client, self.catalog.server)
        self._collection = None

    def nearest(self, vector: Sequence[float], n: int) -> list[tuple[str, float]]:
        """Return the `n` nearest pages: (id, cosine similarity), nearest first."""
        return similarities(self.collection, vector, n)

    def keep(self, key: str, page: Image) -> str:
        """Keep a thumbnail; return its place in the folder of the index."""
        self.folder.mkdir(exist_ok=True)
        name = f"{key}.jpg"
        (self.folder / name).write_bytes(to_jpeg(page, THUMBNAIL_SIDE))
        return f"{THUMBNAILS}/{name}"

    def settle(self, *, thorough: bool) -> tuple[int, set[str]]:
        """Make vectors and thumbnails agree with the records; return how many vectors were put back.

        A vector that is gone is put back from what was seen of the page. Returned are the files, too, of pages that
        another machine has seen.
        """
        ids = set(self.ids())
        if self.folder.is_dir():
            for file in self.folder.iterdir():
                if file.stem not in ids:
                    file.unlink()
            if not ids:
                self.folder.rmdir()
        if not ids and find_pictures(self.client, self.catalog.server) is None:
            return 0, set()
        if not thorough and self.collection.count() == len(ids):
            return 0, set()
        present = stored_ids(self.collection)
        delete_ids(self.collection, [key for key in present if key not in ids])
        missing = self.get([key for key in ids if key not in present])
        seen_by = self.catalog.get("page_embeddings") or ""
        lost = []
        for page in missing.values():
            place = page.metadata
            seen = self.looks(place["path"], place["file_hash"], seen_by).get(place["part"])
            if seen is None:
                lost.append(place["path"])
            else:
                store_chunks(self.collection, [page], [json.loads(seen)])
        return len(missing) - len(lost), set(lost)

    def looks(self, path: str, digest: str, seen_by: str) -> dict[int, str]:
        """Return what was seen of a file's pages: their text, or their vector as JSON, by part."""
        query = "SELECT part, seen FROM looks WHERE path = ? AND hash = ? AND seen_by = ?"
        return {int(part): str(seen) for part, seen in self.catalog._rows(query, (path, digest, seen_by))}

    def add_look(self, path: str, digest: str, part: int, seen_by: str, seen: str) -> None:
        """Record what was seen of a page, so that it is not looked at again."""
        with self.catalog._write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?)", (path, digest, part, seen_by, seen)
            )

    def forget_looks(self, path: str, digest: str | None) -> None:
        """Forget what was seen of a file with other contents; None forgets all."""
        with self.catalog._write() as connection:
            connection.execute("DELETE FROM looks WHERE path = ? AND hash IS NOT ?", (path, digest))


def recorded_page_embedder(
    catalog: Catalog, directory: Path, embeddings: str | Path | PageEmbedder | None
) -> tuple[str, PageEmbedder]:
    """Return the page embedder of an index that holds pictures.

    Raises:
        ValueError: `embeddings` are others, or missing where they cannot be made from the name.
    """
    recorded = catalog.get("page_embeddings")
    if embeddings is None and recorded is not None:
        if catalog.get("page_embeddings_kind") == "object":
            raise ValueError(
                f"the pages of the index in {directory} were embedded by the object {recorded!r}, which cannot be made "
                "from its name; pass it again as page_embeddings=..."
            )
        return resolve_page_embedder(recorded)
    name, embedder = resolve_page_embedder(embeddings)
    if recorded not in (None, name):
        raise ValueError(
            f"the pages of the index in {directory} were embedded by {recorded!r}, not by {name!r}; their vectors do "
            "not compare: pass those again, use another folder, or delete this folder and index again"
        )
    return name, embedder
