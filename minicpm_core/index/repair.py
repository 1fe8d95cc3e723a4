"""Mends an index: what is good is kept, what can be made from the other half is made again, the rest is named."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from minicpm_core.errors import IndexDamagedError
from minicpm_core.index.catalog import _SCHEMA, CATALOG_NAME, FORMAT_VERSION, Catalog, FileRow, StoredChunk
from minicpm_core.index.check import WORDS_AGAIN, Finding, IndexHealth, check_index, stored_passages
from minicpm_core.index.embedders import DEMO_EMBEDDINGS, Embedder, resolve_embedder
from minicpm_core.index.faults import explained
from minicpm_core.index.lock import writer_lock
from minicpm_core.index.picture_store import PictureStore
from minicpm_core.index.recorded import SAME_VECTOR, cosine, describe_embedder, read_settings, resolve_recorded
from minicpm_core.index.store import CHROMA_NAME, close_chroma, delete_ids, open_chroma
from minicpm_core.index.words import passage_words
from minicpm_core.index.writing import IN_WORK, Writer
from minicpm_core.rag import RagSettings

_ASIDE = ".damaged"
_PROBED = 3
Rows = list[tuple[Any, ...]]


def repair_index(persist_directory: str | Path, embeddings: str | Path | Embedder | None = None) -> IndexHealth:
    """Mend the index in a folder, and return its health afterwards with what was done.

    Files whose passages cannot be made whole are taken out and named; the next `build_index` takes them in again.

    Args:
        persist_directory: the folder that `build_index` wrote.
        embeddings: None takes those that made the index. They are needed where vectors have to be made again; where the
            records are lost too, they are compared with the vectors that are left.

    Raises:
        FileNotFoundError: there is no index in the folder.
        IndexDamagedError: nothing is left to mend it from, or `embeddings` are needed and not known.
        ValueError: other embeddings made the index.
        RuntimeError: another run is writing to it.
    """
    directory = Path(persist_directory).expanduser().resolve()
    before = check_index(directory, embeddings)
    if before.is_sound:
        return before
    with explained(directory), writer_lock(directory):
        done = _mend(directory, before.findings, embeddings)
    after = check_index(directory, embeddings)
    return IndexHealth(directory, after.passages, after.files, after.embeddings, after.findings, tuple(done))


def _mend(directory: Path, findings: Sequence[Finding], embeddings: str | Path | Embedder | None) -> list[str]:
    done = []
    if any(finding.whole and finding.part == "records" for finding in findings):
        done += _rebuild_records(directory, embeddings)
        findings = check_index(directory, embeddings).findings
    if any(finding.whole and finding.part == "vectors" for finding in findings):
        _set_aside(directory / CHROMA_NAME)
    catalog = Catalog(directory)
    try:
        done += _mend_halves(directory, catalog, findings, embeddings)
    finally:
        catalog.close()
    for path in (directory / f"{CHROMA_NAME}{_ASIDE}", directory / f"{CATALOG_NAME}{_ASIDE}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return done


def _set_aside(path: Path) -> None:
    """Rename what is damaged; it is deleted when the repair has succeeded."""
    aside = path.with_name(f"{path.name}{_ASIDE}")
    if path.exists():
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)
        path.rename(aside)


def _mend_halves(
    directory: Path, catalog: Catalog, findings: Sequence[Finding], embeddings: str | Path | Embedder | None
) -> list[str]:
    done = []
    recorded = catalog.get("embeddings") or ""
    settings = read_settings(directory, catalog.get("settings") or "")
    name, embedder = _find_embedder(directory, catalog, recorded, embeddings)
    if any(finding.mended == WORDS_AGAIN for finding in findings):
        done.append(f"the list of words was made again, of {_index_words(catalog)} passages")
    client, collection = open_chroma(directory)
    try:
        pictures = PictureStore(directory, catalog, client)
        writer = Writer(directory, catalog, collection, embedder, name, settings, pictures)
        taken = [finding for finding in findings if finding.paths and finding.part == "records"]
        for path in dict.fromkeys(path for finding in taken for path in finding.paths):
            writer.remove(path)
            done.append(f"{path} was taken out; index it again")
        broken = [key for f in findings if f.part == "vectors" and f.kind == "damaged" for key in f.ids]
        delete_ids(collection, broken)
        catalog.set({IN_WORK: "1"})  # so that both halves are compared passage by passage
        done += writer.settle()
        if orphans := sum(len(f.ids) for f in findings if f.part == "vectors" and f.kind == "orphaned"):
            done.append(f"{orphans} vectors that belonged to no passage were deleted")
        writer.leave()
    finally:
        close_chroma(client)
    return done


class _Unknown:
    """Stands for embeddings that are an object and were not given; most repairs do without."""

    def __init__(self, reason: ValueError) -> None:
        self._reason = reason

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise self._reason

    def embed_query(self, text: str) -> list[float]:
        raise self._reason


def _find_embedder(
    directory: Path, catalog: Catalog, recorded: str, embeddings: str | Path | Embedder | None
) -> tuple[str, Embedder]:
    try:
        return resolve_recorded(catalog, recorded, directory, embeddings)
    except ValueError as error:
        if embeddings is not None:
            raise
        return recorded, _Unknown(error)


def _index_words(catalog: Catalog) -> int:
    """Make the full-text table anew, from the passages' texts."""
    with catalog._write() as connection:
        rows = connection.execute("SELECT number, text FROM chunks").fetchall()
        connection.execute("DROP TABLE terms")
        connection.execute(_SCHEMA[_SCHEMA.index("CREATE VIRTUAL TABLE") :].strip())
        for number, text in rows:
            words = passage_words(text)
            values = (number, " ".join(words.words), " ".join(words.characters))
            connection.execute("INSERT INTO terms (rowid, words, characters) VALUES (?, ?, ?)", values)
    return len(rows)


def _rebuild_records(directory: Path, embeddings: str | Path | Embedder | None) -> list[str]:
    """Write new records of what can be read of the old ones, and of what Chroma holds of passages."""
    old = _salvage(directory / CATALOG_NAME)
    stored = _read_chroma(directory)
    meta = {str(row[0]): str(row[1]) for row in old.get("meta", ())}
    meta |= _complete_meta(directory, meta, stored, embeddings)
    passages = {
        row[1]: StoredChunk(row[1], row[3], json.loads(row[4])) for row in old.get("chunks", ()) if _valid(row[4])
    }
    for key, text, metadata, _ in stored:
        passages.setdefault(key, StoredChunk(key, text, metadata))
    by_path: dict[str, list[StoredChunk]] = {}
    for passage in passages.values():
        by_path.setdefault(str(passage.metadata.get("path")), []).append(passage)
    rows = {row[0]: FileRow(*row) for row in old.get("files", ())}
    pages = {(row[0], row[1]): row[2] for row in old.get("page_texts", ())}
    unfinished = {row[0] for row in old.get("unfinished", ())}
    if not by_path and not old.get("pictures"):
        raise IndexDamagedError(
            f"nothing can be read of the index in {directory} any more; delete the folder and index the documents again"
        )
    _set_aside(directory / CATALOG_NAME)
    for suffix in ("-journal", "-wal", "-shm"):
        (directory / f"{CATALOG_NAME}{suffix}").unlink(missing_ok=True)
    catalog, kept, lost = Catalog(directory), 0, []
    try:
        for path, chunks in sorted(by_path.items()):
            chunks.sort(key=lambda chunk: int(chunk.metadata.get("chunk", 0)))
            row = rows.get(path) or _make_row(path, chunks)
            numbers = [chunk.metadata.get("chunk") for chunk in chunks]
            if path in unfinished or row.chunks != len(chunks) or len(set(numbers)) != len(numbers):
                lost.append(path)
                continue
            _put(catalog, row, chunks, pages)
            kept += 1
        catalog.add_roots([Path(row[0]) for row in old.get("roots", ())])
        _copy(catalog, "pictures", old.get("pictures", ()))
        _copy(catalog, "looks", old.get("looks", ()))
        pictured = {row[1] for row in old.get("pictures", ())}
        for path in (rows.keys() & pictured) - by_path.keys():
            catalog.end_file(path, rows[path])
        catalog.set(meta | {"format": FORMAT_VERSION})
    finally:
        catalog.close()
    done = [f"the records of {kept} files were saved, of {len(old.get('chunks', ()))} passages in the old file"]
    return done + [f"{path} could not be saved whole; index it again" for path in lost]


def _put(catalog: Catalog, row: FileRow, chunks: Sequence[StoredChunk], pages: Mapping[tuple[str, int], bytes]) -> None:
    catalog.begin_file(row.path)
    for part in sorted({int(chunk.metadata.get("part", 0)) for chunk in chunks}):
        text = None
        with suppress(KeyError, zlib.error, UnicodeDecodeError, TypeError):
            text = zlib.decompress(pages[row.path, part]).decode()
        catalog.add_page(
            row.path, part, _page([c for c in chunks if c.metadata.get("part", 0) == part]) if text is None else text
        )
    catalog.add_chunks(row.path, chunks)
    catalog.end_file(row.path, row)


def _page(chunks: Sequence[StoredChunk]) -> str:
    """Return a page's text put together from its passages; what lies between them is blank."""
    letters = [" "] * max((int(chunk.metadata.get("end", 0)) for chunk in chunks), default=0)
    for chunk in chunks:
        start, end = int(chunk.metadata.get("start", 0)), int(chunk.metadata.get("end", 0))
        if end - start == len(chunk.text):
            letters[start:end] = chunk.text
    return "".join(letters)


def _make_row(path: str, chunks: Sequence[StoredChunk]) -> FileRow:
    """Return the record of a file of which there are only passages; the next run reads it anew."""
    first = chunks[0].metadata
    whole = max(int(chunk.metadata.get("chunk", -1)) for chunk in chunks) + 1
    source = str(first.get("source", path))
    return FileRow(path, source, str(first.get("file_hash", "")), "", whole, 0, 0.0)


def _copy(catalog: Catalog, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with catalog._write() as connection:
        for row in rows:
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def _complete_meta(
    directory: Path, meta: dict[str, str], stored: Sequence[tuple[Any, ...]], embeddings: str | Path | Embedder | None
) -> dict[str, str]:
    """Return what is missing of the values that every index has."""
    made: dict[str, str] = {}
    if "embeddings" not in meta:
        if embeddings is None:
            raise IndexDamagedError(
                f"the records of the index in {directory} are lost, and with them which embeddings made it; give these "
                "as embeddings=..., on the command line --embeddings NAME"
            )
        name, embedder = resolve_embedder(embeddings)
        _refuse_others(directory, name, embedder, stored)
        by_name = isinstance(embeddings, str | os.PathLike)
        made = {"embeddings": name} | describe_embedder(embedder, by_name)
    try:
        read_settings(directory, meta.get("settings", ""))
    except ValueError:
        demo = (meta | made)["embeddings"] == DEMO_EMBEDDINGS
        settings = RagSettings.demo() if demo else RagSettings()
        made["settings"] = json.dumps(settings.to_dict(), ensure_ascii=False)
    return made


def _refuse_others(directory: Path, name: str, embedder: Embedder, stored: Sequence[tuple[Any, ...]]) -> None:
    known = [(text, vector) for _, text, _, vector in stored if vector is not None][:_PROBED]
    again = embedder.embed_documents([text for text, _ in known]) if known else []
    for (_, vector), own in zip(known, again, strict=True):
        if len(vector) != len(own) or cosine([float(x) for x in vector], own) < SAME_VECTOR:
            raise ValueError(
                f"the vectors of the index in {directory} are not those of {name!r}, which gives a stored passage "
                "another one; give the embeddings that made the index"
            )


def _salvage(file: Path) -> dict[str, Rows]:
    """Return the rows of each table that can be read, from its beginning and from its end."""
    tables = ("meta", "roots", "files", "unfinished", "chunks", "page_texts", "pictures", "looks")
    found: dict[str, Rows] = {}
    if not file.is_file() or not file.stat().st_size:
        return found
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        for table in tables:
            rows: dict[int, tuple[Any, ...]] = {}
            for order in ("ASC", "DESC"):
                try:
                    for row in connection.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid {order}"):
                        rows[row[0]] = row[1:]
                except sqlite3.Error:
                    continue  # what was read up to here is kept
                break
            found[table] = [rows[number] for number in sorted(rows)]
    return found


def _read_chroma(directory: Path) -> list[tuple[Any, ...]]:
    """Return (id, text, metadata, vector) of the passages that Chroma holds, as far as it can be read."""
    if not (directory / CHROMA_NAME / "chroma.sqlite3").is_file():
        return []
    try:
        client, collection = open_chroma(directory)
    except Exception:  # told before, as a finding
        return []
    found: list[tuple[Any, ...]] = []
    try:
        for parts in (("documents", "metadatas", "embeddings"), ("documents", "metadatas")):
            try:
                rows = list(stored_passages(collection, *parts))
            except Exception:  # the vectors' own files may be lost, and the texts not
                continue
            found = [(*row, None)[:4] for row in rows if row[1] is not None and (row[2] or {}).get("path")]
            break
    finally:
        close_chroma(client)
    return found


def _valid(metadata: Any) -> bool:
    try:
        return isinstance(json.loads(metadata), dict)
    except (ValueError, TypeError):
        return False
