"""The index's own records in one SQLite file: settings, folders, files, passages and their words (FTS5)."""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.index.faults import explain
from minicpm_core.index.words import Words, passage_words

if TYPE_CHECKING:
    from minicpm_core.index.chroma_server import ChromaServer

FORMAT_VERSION = "1"
CATALOG_NAME = "index.sqlite3"
BUSY_SECONDS = 30.0
"""How long another program's lock on the file is waited for."""
_MOST_VARIABLES = 900
_CHARACTER_WEIGHT = 0.3
_FINISHED = "chunks.path NOT IN (SELECT path FROM unfinished)"
# Our words go in ready made: the ascii tokenizer only takes them apart at spaces again.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS roots (path TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, source TEXT NOT NULL UNIQUE, hash TEXT NOT NULL, splitting TEXT NOT NULL,
    chunks INTEGER NOT NULL, size INTEGER NOT NULL, mtime REAL NOT NULL);
CREATE TABLE IF NOT EXISTS unfinished (path TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS chunks (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, path TEXT NOT NULL, text TEXT NOT NULL,
    metadata TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS chunks_by_path ON chunks (path);
CREATE TABLE IF NOT EXISTS page_texts (
    path TEXT NOT NULL, part INTEGER NOT NULL, text BLOB NOT NULL, PRIMARY KEY (path, part));
CREATE TABLE IF NOT EXISTS pictures (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, text TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS looks (
    path TEXT NOT NULL, hash TEXT NOT NULL, part INTEGER NOT NULL, seen_by TEXT NOT NULL, seen BLOB NOT NULL,
    PRIMARY KEY (path, hash, part, seen_by));
CREATE VIRTUAL TABLE IF NOT EXISTS terms USING fts5 (words, characters, tokenize = "ascii tokenchars '.'");
"""


@dataclass(frozen=True)
class FileRow:
    """A file whose passages are all stored; `splitting` names the way it was cut."""

    path: str
    source: str
    hash: str
    splitting: str
    chunks: int
    size: int
    mtime: float


@dataclass(frozen=True)
class StoredChunk:
    """A passage as stored: its text and its metadata.

    These are: source, path, part, start, end, chunk, file_hash; where there are any: page, heading, member.
    `page_text(path, part)[start:end]` is the text.
    """

    id: str
    text: str
    metadata: Mapping[str, Any]


class Catalog:
    """The SQLite file of an index; safe to use from several threads."""

    server: ChromaServer | None = None
    """Where the vectors are, if not in the folder."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(directory / CATALOG_NAME, timeout=BUSY_SECONDS, check_same_thread=False)
        # A chain or engine made from a folder opens its index itself, and nobody closes that.
        weakref.finalize(self, self._connection.close)
        try:
            self._connection.executescript(_SCHEMA)
            version = self.get("format")
            if version not in (None, FORMAT_VERSION):
                raise ValueError(
                    f"the index in {directory} has format {version}; this version of the package reads "
                    f"{FORMAT_VERSION}: update the package, or delete the folder and index the documents again"
                )
        except sqlite3.Error as error:
            self.close()
            raise explain(error, directory) or error from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def empty(self) -> None:
        """Delete what a run that never finished a file has left elsewhere: nothing, where there is no server."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write, beyond that to the folder, where there is a server."""
        yield

    def get(self, key: str) -> str | None:
        """Return a recorded value."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set(self, values: Mapping[str, str]) -> None:
        """Record values."""
        with self._write() as connection:
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def add_roots(self, roots: Iterable[Path]) -> None:
        """Record folders that were indexed."""
        with self._write() as connection:
            connection.executemany("INSERT OR IGNORE INTO roots VALUES (?)", [(str(root),) for root in roots])

    def roots(self) -> list[Path]:
        """Return every folder that was indexed."""
        return [Path(row[0]) for row in self._rows("SELECT path FROM roots ORDER BY path")]

    def files(self) -> dict[str, FileRow]:
        """Return the stored files by path."""
        return {row[0]: FileRow(*row) for row in self._rows("SELECT * FROM files ORDER BY source")}

    def count(self) -> int:
        """Return the number of passages of finished files."""
        return int(self._rows(f"SELECT count(*) FROM chunks WHERE {_FINISHED}")[0][0])

    def unfinished(self) -> list[str]:
        """Return the paths whose passages in Chroma are not to be trusted."""
        return [str(row[0]) for row in self._rows("SELECT path FROM unfinished")]

    def has_looks(self) -> bool:
        """Tell whether a model has looked at pages of files, stored or not."""
        return bool(self._rows("SELECT 1 FROM looks LIMIT 1"))

    def begin_file(self, path: str) -> None:
        """Forget a file and mark it unfinished, before its passages in Chroma change."""
        with self._write() as connection:
            connection.execute("INSERT OR REPLACE INTO unfinished VALUES (?)", (path,))
            _forget(connection, path)

    def add_chunks(self, path: str, chunks: Sequence[StoredChunk]) -> None:
        """Store passages of an unfinished file; they are found when it is finished."""
        with self._write() as connection:
            for chunk in chunks:
                words = passage_words(chunk.text)
                metadata = json.dumps(dict(chunk.metadata), ensure_ascii=False)
                number = connection.execute(
                    "INSERT INTO chunks (id, path, text, metadata) VALUES (?, ?, ?, ?)",
                    (chunk.id, path, chunk.text, metadata),
                ).lastrowid
                connection.execute(
                    "INSERT INTO terms (rowid, words, characters) VALUES (?, ?, ?)",
                    (number, " ".join(words.words), " ".join(words.characters)),
                )

    def add_page(self, path: str, part: int, text: str) -> None:
        """Store the text of a page, in which the passages have their places."""
        with self._write() as connection:
            connection.execute("INSERT INTO page_texts VALUES (?, ?, ?)", (path, part, zlib.compress(text.encode(), 1)))

    def add_pictures(self, path: str, pages: Sequence[StoredChunk]) -> None:
        """Store pages of an unfinished file that are kept as pictures; `metadata["thumbnail"]` is there already."""
        rows = [(page.id, path, page.text, json.dumps(dict(page.metadata), ensure_ascii=False)) for page in pages]
        with self._write() as connection:
            connection.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?)", rows)

    def end_file(self, path: str, row: FileRow | None, values: Mapping[str, str] | None = None) -> None:
        """Record a file whose passages are all stored; None when it has been removed.

        Args:
            path: of the file.
            row: what is recorded of it.
            values: recorded together with it.
        """
        with self._write() as connection:
            if row is None:
                _forget(connection, path)
            else:
                fields = (row.path, row.source, row.hash, row.splitting, row.chunks, row.size, row.mtime)
                connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", fields)
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", (values or {}).items())
            connection.execute("DELETE FROM unfinished WHERE path = ?", (path,))

    def page_text(self, path: str, part: int) -> str | None:
        """Return the text of a page, None where there is none."""
        rows = self._rows("SELECT text FROM page_texts WHERE path = ? AND part = ?", (path, part))
        return zlib.decompress(rows[0][0]).decode() if rows else None

    def ids(self) -> dict[str, str]:
        """Return the path of every passage of a finished file by its id."""
        return dict(self._rows(f"SELECT id, path FROM chunks WHERE {_FINISHED}"))

    def chunks(self, ids: Sequence[str]) -> dict[str, StoredChunk]:
        """Return the passages of the given ids; those not stored are left out."""
        found: dict[str, StoredChunk] = {}
        for start in range(0, len(ids), _MOST_VARIABLES):
            some = ids[start : start + _MOST_VARIABLES]
            marks = ", ".join("?" * len(some))
            for row in self._rows(f"SELECT id, text, metadata FROM chunks WHERE id IN ({marks}) AND {_FINISHED}", some):
                found[row[0]] = StoredChunk(row[0], row[1], json.loads(row[2]))
        return found

    def beside(self, chunk: StoredChunk, steps: int) -> StoredChunk | None:
        """Return the passage `steps` behind another one (before it where negative) on the same page."""
        path, number = chunk.metadata["path"], int(chunk.metadata["chunk"]) + steps
        rows = self._rows(
            "SELECT id, text, metadata FROM chunks WHERE path = ? AND number = "
            f"(SELECT number FROM chunks WHERE id = ?) + ? AND {_FINISHED}",
            (path, chunk.id, steps),
        )
        found = [StoredChunk(row[0], row[1], json.loads(row[2])) for row in rows]
        page = chunk.metadata.get("part")
        return next((c for c in found if (c.metadata["chunk"], c.metadata.get("part")) == (number, page)), None)

    def find(self, question: Words, n: int, where: tuple[str, Sequence[Any]] = ("1", ())) -> list[tuple[str, float]]:
        """Return the `n` best passages by words: (id, BM25 score), best first, higher is better.

        Args:
            question: what to look for.
            n: passages at most.
            where: an SQL condition on `chunks` and its values, as of `filters.where_sql`.
        """
        terms = [f'words : "{word}"' for word in dict.fromkeys(question.words)]
        terms += [f'characters : "{character}"' for character in dict.fromkeys(question.characters)]
        if not terms:
            return []
        rows = self._rows(
            f"SELECT chunks.id, -bm25(terms, 1.0, {_CHARACTER_WEIGHT}) AS score "
            "FROM terms JOIN chunks ON chunks.number = terms.rowid WHERE terms MATCH ? "
            f"AND {_FINISHED} AND {where[0]} "
            "ORDER BY score DESC, chunks.number LIMIT ?",
            (" OR ".join(terms), *where[1], n),
        )
        return [(str(row[0]), float(row[1])) for row in rows]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, tuple(values)).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection


def _forget(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("DELETE FROM terms WHERE rowid IN (SELECT number FROM chunks WHERE path = ?)", (path,))
    for table in ("chunks", "page_texts", "pictures", "files"):
        connection.execute(f"DELETE FROM {table} WHERE path = ?", (path,))
