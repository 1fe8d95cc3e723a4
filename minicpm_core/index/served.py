"""The records of an index on a Chroma server, and each machine's copy of them, which is searched by words."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minicpm_core.index.catalog import FORMAT_VERSION, Catalog, FileRow, StoredChunk
from minicpm_core.index.chroma_server import ChromaServer, PatientCollection, describe_missing, disconnect
from minicpm_core.index.page_files import may_hold_pages
from minicpm_core.index.store import find_pictures
from minicpm_core.index.thumbnails import forget_thumbnails, read_thumbnails, write_thumbnails

_LOCAL = ("server", "machine", "in_work")
"""What the copy records for itself."""
_META = "meta"
_LISTED = 1000
_PAGES_HELD, _CHARACTERS_HELD = 64, 2**21  # of pages that wait to be sent; a server takes 40 MB at once


class ServedCatalog(Catalog):
    """A catalog whose records lie on a Chroma server too, in a collection of their own beside that of the passages.

    A file is in the index when the server has its record, which is written behind the file's passages and deleted
    before them. The SQLite file is a copy, made anew from the server where it is missing.

    Args:
        directory: of the copy.
        server: the index.
        make: make the index's collections where they are missing.

    Raises:
        ConnectionError: the server does not answer.
        PermissionError: it does not take the token.
        FileNotFoundError: there is no such index, and it is not to be made.
        ValueError: the folder holds another index, or a newer version of the package made the one on the server.
    """

    def __init__(self, directory: Path, server: ChromaServer, *, make: bool) -> None:
        super().__init__(directory)
        self._directory = directory
        self.server: ChromaServer = server
        self._pages: list[tuple[str, str, int, str]] = []
        try:
            recorded, own = self.get("server"), self.get("embeddings") is not None
            if recorded != str(server) and (recorded is not None or own):
                kind = f"of the one on {recorded}" if recorded else "of its own"
                raise ValueError(f"{directory} holds an index {kind}, not that on {server}; use another folder for it")
            self._client = server.connect()
        except BaseException:
            super().close()
            raise
        try:
            self._records: Any = PatientCollection(server, self._open(f"{server.name}_files", make))
            super().set({"server": str(server), "machine": self.get("machine") or uuid.uuid4().hex})
        except BaseException:
            self.close()
            raise

    def _open(self, name: str, make: bool) -> Any:
        from chromadb.errors import NotFoundError

        if make:
            return self._client.get_or_create_collection(name, embedding_function=None)
        try:
            return self._client.get_collection(name, embedding_function=None)
        except NotFoundError as error:
            raise FileNotFoundError(describe_missing(self.server)) from error

    def close(self) -> None:
        """Close the copy and the connection."""
        super().close()
        disconnect(self._client)

    # What is written goes to the server first: what only the copy lacks, `pull` fetches.

    def set(self, values: Mapping[str, str]) -> None:
        """Record values."""
        self._put_meta(values, self.roots())
        super().set(values)

    def add_roots(self, roots: Iterable[Path]) -> None:
        """Record folders that were indexed."""
        given = list(roots)
        self._put_meta({}, [*self.roots(), *given])
        super().add_roots(given)

    def begin_file(self, path: str) -> None:
        """Forget a file and mark it unfinished, before its passages in Chroma change."""
        self._drop_records(path)
        super().begin_file(path)

    def add_page(self, path: str, part: int, text: str) -> None:
        """Store the text of a page, in which the passages have their places."""
        super().add_page(path, part, text)
        if text:
            self._pages.append((_key("page", path, part), path, part, text))
        if len(self._pages) >= _PAGES_HELD or sum(len(page[3]) for page in self._pages) >= _CHARACTERS_HELD:
            self._put_pages()

    def add_pictures(self, path: str, pages: Sequence[StoredChunk]) -> None:
        """Store pages that are kept as pictures, with their small pictures."""
        super().add_pictures(path, pages)
        for key, record in write_thumbnails(self._directory, pages):
            self._put([key], [""], [record])

    def end_file(self, path: str, row: FileRow | None, values: Mapping[str, str] | None = None) -> None:
        """Record a file whose passages are all stored; None when it has been removed."""
        self._put_pages()
        if row is None:
            self._drop_records(path)
        else:
            # As JSON, since numbers in Chroma's metadata come back rounded.
            self._put([_key("file", path)], [json.dumps(asdict(row))], [{"kind": "file", "path": path}])
        if values:
            self._put_meta(values, self.roots())
        super().end_file(path, row, values)

    def empty(self) -> None:
        """Delete all records of the server."""
        while found := self._records.get(limit=_LISTED, include=[])["ids"]:
            self._records.delete(ids=found)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write to the index on the server, which one machine's folder has at a time.

        A run that was killed leaves its mark; the next one of the same folder takes it over.

        Raises:
            RuntimeError: another machine, or another folder of this one, is writing.
        """
        name, mine = f"{self.server.name}_writer", str(self.get("machine"))
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        mark = {"machine": mine, "host": socket.gethostname(), "process": os.getpid(), "since": since}
        self.server.patiently(self._mark, name, mark)
        try:
            yield
        finally:
            with suppress(Exception):  # the server is away: the mark is taken over by the next run
                self._client.delete_collection(name)

    def _mark(self, name: str, mark: dict[str, Any]) -> None:
        from chromadb.errors import ChromaError

        try:
            self._client.create_collection(name, metadata=mark, embedding_function=None)
            return
        except ChromaError:  # it is there already
            held = self._client.get_collection(name, embedding_function=None).metadata or {}
        if held.get("machine") != mark["machine"]:
            raise RuntimeError(
                f"the index on {self.server} is being written by process {held.get('process')} on {held.get('host')}, "
                f"since {held.get('since')}; wait until it has ended. If it was killed, run it again there, or delete "
                f"the collection {name!r} of the server"
            )

    def pull(self) -> None:
        """Make the copy agree with the server's records.

        Raises:
            ValueError: a newer version of the package made the index.
        """
        stored = self._records.get(ids=[_META], include=["documents"])["documents"]
        meta: dict[str, Any] = json.loads(stored[0]) if stored else {"values": {}, "roots": []}
        if meta["values"].get("format") not in (None, FORMAT_VERSION):
            raise ValueError(
                f"the index on {self.server} has format {meta['values']['format']}; this version of the package reads "
                f"{FORMAT_VERSION}: update the package"
            )
        there, here = self._rows_there(), self.files()
        for path in here.keys() - there.keys():
            self._forget_thumbnails(path)
            super().begin_file(path)
            super().end_file(path, None)
        changed = {path: row for path, row in there.items() if here.get(path) != row}
        if changed:
            passages = PatientCollection(self.server, self._open(self.server.name, make=False))
            pictures = find_pictures(self._client, self.server)
            for path, row in changed.items():
                self._fetch(passages, pictures, path, row)
        with self._write() as connection:
            marks = ", ".join("?" * len(_LOCAL))
            connection.execute(f"DELETE FROM meta WHERE key NOT IN ({marks})", _LOCAL)
            connection.execute("DELETE FROM roots")
        super().set(meta["values"])
        super().add_roots([Path(root) for root in meta["roots"]])

    def _rows_there(self) -> dict[str, FileRow]:
        rows: dict[str, FileRow] = {}
        offset = 0
        while True:
            where = {"kind": "file"}
            found = self._records.get(where=where, limit=_LISTED, offset=offset, include=["documents"])["documents"]
            rows |= {row.path: row for row in (FileRow(**json.loads(text)) for text in found)}
            if len(found) < _LISTED:
                return rows
            offset += _LISTED

    def _fetch(self, passages: Any, pictures: Any, path: str, row: FileRow) -> None:
        """Copy a file; one that is being replaced, or that the server has lost a part of, is left out."""
        chunks = _stored(passages, path)
        chunks.sort(key=lambda chunk: int(chunk.metadata["chunk"]))
        looked = _stored(pictures, path) if pictures is not None and may_hold_pages(path) else []
        pages = self._of_file("page", path)
        small = self._of_file("thumbnail", path)["metadatas"] if may_hold_pages(path) else []
        now = self._records.get(ids=[_key("file", path)], include=["documents"])["documents"]
        self._forget_thumbnails(path)
        super().begin_file(path)
        hashes = {part.metadata["file_hash"] for part in (*chunks, *looked)}
        whole = len(chunks) == row.chunks and {page.id for page in looked} == {record["id"] for record in small}
        if not now or FileRow(**json.loads(now[0])) != row or hashes - {row.hash} or not whole:
            super().end_file(path, None)
            return
        if looked:
            read_thumbnails(self._directory, looked, small)
            super().add_pictures(path, looked)
        for text, place in zip(pages["documents"], pages["metadatas"], strict=True):
            super().add_page(path, int(place["part"]), text)
        super().add_chunks(path, chunks)
        super().end_file(path, row)

    def _of_file(self, kind: str, path: str) -> Any:
        where = {"$and": [{"kind": kind}, {"path": path}]}
        return self._records.get(where=where, include=["documents", "metadatas"])

    def _forget_thumbnails(self, path: str) -> None:
        forget_thumbnails(
            self._directory, (row[0] for row in self._rows("SELECT id FROM pictures WHERE path = ?", (path,)))
        )

    def _put_meta(self, values: Mapping[str, str], roots: Sequence[Path]) -> None:
        known = dict(self._rows("SELECT key, value FROM meta")) | dict(values)
        if not values.keys() <= set(_LOCAL) or roots != self.roots():
            shared = {key: value for key, value in known.items() if key not in _LOCAL}
            told = {"values": shared, "roots": sorted({str(root) for root in roots})}
            self._put([_META], [json.dumps(told, ensure_ascii=False)], [{"kind": _META}])

    def _put_pages(self) -> None:
        if pages := self._pages:
            places = [{"kind": "page", "path": path, "part": part} for _, path, part, _ in pages]
            self._put([page[0] for page in pages], [page[3] for page in pages], places)
            self._pages = []

    def _put(self, ids: Sequence[str], documents: Sequence[str], metadatas: Sequence[Mapping[str, Any]]) -> None:
        # Chroma wants a vector for everything; these are never asked for what is near.
        vectors = [[zlib.crc32(key.encode()) / 2**32] for key in ids]
        self._records.upsert(ids=ids, documents=documents, metadatas=metadatas, embeddings=vectors)

    def _drop_records(self, path: str) -> None:
        self._pages = [page for page in self._pages if page[1] != path]
        self._records.delete(where={"path": path})


def _stored(collection: Any, path: str) -> list[StoredChunk]:
    found = collection.get(where={"path": path}, include=["documents", "metadatas"])
    return [StoredChunk(*one) for one in zip(found["ids"], found["documents"], found["metadatas"], strict=True)]


def _key(kind: str, path: str, part: int = 0) -> str:
    return hashlib.sha256(f"{kind}\0{path}\0{part}".encode()).hexdigest()
