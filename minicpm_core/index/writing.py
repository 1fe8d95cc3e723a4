"""Writes passages to Chroma and to the catalog so that the two agree after whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from minicpm_core.index.catalog import Catalog, FileRow, StoredChunk
from minicpm_core.index.cutting import cut_pages
from minicpm_core.index.embedders import EMBED_BATCH, Embedder
from minicpm_core.index.outline import Page
from minicpm_core.index.picture_store import PictureStore
from minicpm_core.index.recorded import check_dimension, check_embedder, describe_embedder
from minicpm_core.index.store import delete_ids, store_chunks, stored_ids
from minicpm_core.rag import RagSettings

if TYPE_CHECKING:
    from chromadb import Collection

IN_WORK = "in_work"  # "1" from the first change of a run to its orderly end


class Writer:
    """The changes of one run.

    A file is marked unfinished in the catalog before anything of it changes, and the mark goes in the transaction that
    records it as finished; what is unfinished when a run begins is taken out of both.
    """

    def __init__(
        self,
        directory: Path,
        catalog: Catalog,
        collection: Collection,
        embedder: Embedder,
        name: str,
        settings: RagSettings,
        pictures: PictureStore,
    ) -> None:
        self.pictures = pictures
        self.directory, self.catalog, self.collection = directory, catalog, collection
        self.embedder, self.name, self.settings = embedder, name, settings
        self._first: dict[str, str] | None = None  # recorded with the first file
        self._by_name = True
        self._checked = False

    def begin_index(self, values: dict[str, str], *, by_name: bool) -> None:
        """Make the index one of this embedder as soon as the first file is finished; until then there is none."""
        self._first, self._by_name = values | {"embeddings": self.name}, by_name

    def settle(self) -> list[str]:
        """Undo what an earlier run left unfinished, and mend what it left different; return sentences about it."""
        for path in self.catalog.unfinished():
            self._drop(path)
        stopped = self.catalog.get(IN_WORK) == "1"
        notes = []
        if stopped or self.collection.count() != self.catalog.count():
            stored, present = self.catalog.ids(), stored_ids(self.collection)
            delete_ids(self.collection, [i for i in present if i not in stored])
            missing = [i for i in stored if i not in present]
            if missing:
                self._restore(missing)
                notes.append(f"{len(missing)} passages had no vector any more and were embedded again")
        put_back, lost = self.pictures.settle(thorough=stopped)
        if put_back:
            notes.append(f"{put_back} pages had no vector any more and were put back")
        for path in lost:
            self.remove(path)
        if lost:
            notes.append(f"{len(lost)} files had pages without a vector and were taken out, to be looked at again")
        self.catalog.set({IN_WORK: "1"})
        return notes

    def leave(self) -> None:
        """Record that the run ended in order."""
        self.catalog.set({IN_WORK: "0"})

    def remove(self, path: str) -> None:
        """Take a file out of the index."""
        self.catalog.begin_file(path)
        self._drop(path)

    def store(
        self,
        file: FileRow,
        pages: Iterable[Page],
        pictures: Sequence[StoredChunk] = (),
        vectors: Sequence[Sequence[float]] = (),
    ) -> Iterator[tuple[int, float]]:
        """Write a file that is not in the index; yield (passages written, share of the file that is done) at times.

        A file without passages is not recorded.

        Args:
            file: its record; the number of passages is filled in here.
            pages: in order; read one after the other, so that a long file needs no more memory than a short one.
            pictures: pages that are stored as pictures.
            vectors: of the pictures.
        """
        self.catalog.begin_file(file.path)
        waiting: list[StoredChunk] = []
        total = part = 0
        count = len(pages) if isinstance(pages, Sequence) else None
        for part, (page, chunks) in enumerate(cut_pages(pages, file, self.settings, self.embedder)):
            self.catalog.add_page(file.path, part, page.text)
            waiting += chunks
            while len(waiting) >= EMBED_BATCH:
                batch, waiting = waiting[:EMBED_BATCH], waiting[EMBED_BATCH:]
                self._write(file.path, batch)
                total += len(batch)
                place = batch[-1].metadata
                within = place["end"] / len(page.text) if place["part"] == part else 0.0
                yield len(batch), (place["part"] + within) / count if count else 0.0
        self._write(file.path, waiting)
        total += len(waiting)
        if pictures:
            self._check()
            self.pictures.add(file.path, pictures, vectors)
        if total or pictures:
            first, self._first = self._first, None
            self.catalog.end_file(file.path, replace(file, chunks=total), first)
        else:
            self.catalog.end_file(file.path, None)
        yield len(waiting), 1.0

    def _write(self, path: str, chunks: Sequence[StoredChunk]) -> None:
        if not chunks:
            return
        self._check()
        vectors = self.embedder.embed_documents([chunk.text for chunk in chunks])
        if self._first is None:
            check_dimension(self.catalog, self.name, len(vectors[0]), self.directory)
        self.catalog.add_chunks(path, chunks)
        store_chunks(self.collection, chunks, vectors)

    def _check(self) -> None:
        """Compare the embedder with the recorded one, or describe it, before its first vector is stored."""
        if not self._checked:
            self._checked = True
            if self._first is not None:
                self._first |= describe_embedder(self.embedder, self._by_name)
            else:
                check_embedder(self.catalog, self.name, self.embedder, self.directory)

    def _drop(self, path: str) -> None:
        self.collection.delete(where={"path": path})
        self.pictures.drop(path)
        self.catalog.end_file(path, None)

    def _restore(self, ids: Sequence[str]) -> None:
        self._check()
        for start in range(0, len(ids), EMBED_BATCH):
            chunks = list(self.catalog.chunks(ids[start : start + EMBED_BATCH]).values())
            store_chunks(self.collection, chunks, self.embedder.embed_documents([chunk.text for chunk in chunks]))
