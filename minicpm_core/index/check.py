"""Checks an index: its records, its vectors, its files and its embedder against each other."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minicpm_core.index.catalog import CATALOG_NAME, FORMAT_VERSION
from minicpm_core.index.embedders import Embedder, resolve_embedder
from minicpm_core.index.faults import explained
from minicpm_core.index.recorded import PROBE, SAME_VECTOR, cosine, read_settings
from minicpm_core.index.store import CHROMA_NAME, close_chroma, open_chroma

Kind = Literal["damaged", "missing", "orphaned", "doubled", "unfinished", "embedder", "files"]
WORDS_AGAIN = "the list of words is made again"
_LISTED = 500
_FINISHED = "path NOT IN (SELECT path FROM unfinished)"
_TABLES = ("meta", "roots", "files", "unfinished", "chunks", "page_texts", "pictures", "looks", "terms")


@dataclass(frozen=True)
class Finding:
    """Something about an index that is not as it should be.

    Args:
        kind: "files" tells only that documents have changed since; all others are damage.
        part: "records" (index.sqlite3), "vectors" (Chroma), "embedder" or "documents".
        text: what it is.
        mended: what `repair_index` does about it; "" where it can do nothing.
        paths: of the files whose passages are touched, where they are known.
        ids: passages whose vectors have to be made anew.
        whole: the part cannot be used as it is.
    """

    kind: Kind
    part: Literal["records", "vectors", "embedder", "documents"]
    text: str
    mended: str = ""
    paths: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class IndexHealth:
    """What a check found; `repairs` tells what was done about it, where something was."""

    directory: Path
    passages: int
    files: int
    embeddings: str | None
    findings: tuple[Finding, ...]
    repairs: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether there is no damage; documents that have changed since are none."""
        return all(finding.kind == "files" for finding in self.findings)


def check_index(persist_directory: str | Path, embeddings: str | Path | Embedder | None = None) -> IndexHealth:
    """Check the index in a folder; nothing is changed.

    Args:
        persist_directory: the folder that `build_index` wrote.
        embeddings: None takes those that made the index; an object must be given again, or its vectors are not probed.

    Raises:
        FileNotFoundError: there is no index in the folder.
        ValueError: the folder holds the records of an index on a Chroma server.
    """
    directory = Path(persist_directory).expanduser().resolve()
    if not (directory / CATALOG_NAME).is_file() and not (directory / CHROMA_NAME).is_dir():
        raise FileNotFoundError(f"there is no index in {directory}")
    with explained(directory):
        findings, facts = check_records(directory)
    rows: dict[str, str] = facts.get("texts", {})
    findings += check_vectors(directory, facts.get("texts"), facts.get("dimension"))
    if "files" in facts:
        findings += _check_documents(directory)
    findings += _check_embedder(facts, embeddings)
    return IndexHealth(directory, len(rows), facts.get("files", 0), facts.get("embeddings"), tuple(findings))


def check_records(directory: Path) -> tuple[list[Finding], dict[str, Any]]:
    """Return what is wrong with index.sqlite3, and what it tells: {"texts": text by id of finished files, ...}."""
    file = directory / CATALOG_NAME
    if not file.is_file() or not file.stat().st_size:
        return [_broken("records", f"the records {CATALOG_NAME} are gone")], {}
    facts: dict[str, Any] = {}
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            told = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
            if told != ["ok"]:
                return [_broken("records", f"{CATALOG_NAME} is damaged: {'; '.join(told)[:200]}")], facts
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if lost := [name for name in _TABLES if name not in tables]:
                return [_broken("records", f"{CATALOG_NAME} lacks the tables {', '.join(lost)}")], facts
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            if "server" in meta:
                raise ValueError(
                    f"{directory} holds the records of the index on {meta['server']}; check that one there"
                )
            findings = _check_meta(directory, meta, facts)
            query = f"SELECT id, text FROM chunks WHERE {_FINISHED}"
            facts["texts"] = dict(connection.execute(query))
            facts["files"] = connection.execute("SELECT count(*) FROM files").fetchone()[0]
            findings += _check_tables(connection, meta)
    except sqlite3.OperationalError:  # of the disk, or of another program
        raise
    except sqlite3.DatabaseError as error:
        return [_broken("records", f"{CATALOG_NAME} cannot be read: {error}")], facts
    return findings, facts


def _broken(part: Literal["records", "vectors"], text: str) -> Finding:
    how = "saved as far as it can be read, the rest made again from the other half" if part == "records" else _EMBED
    return Finding("damaged", part, text, how, whole=True)


_EMBED = "the passages are embedded again from their texts in the records"


def _check_meta(directory: Path, meta: dict[str, str], facts: dict[str, Any]) -> list[Finding]:
    facts |= {"embeddings": meta.get("embeddings"), "kind": meta.get("embeddings_kind")}
    facts |= {"probe": meta.get("embeddings_probe")}
    facts["dimension"] = int(meta["dimension"]) if meta.get("dimension", "").isdigit() else None
    findings = []
    if meta.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(f"the index in {directory} has format {meta['format']}; update the package to check it")
    if "embeddings" not in meta:
        findings.append(_broken("records", "the records do not tell which embeddings made the index"))
    try:
        read_settings(directory, meta.get("settings", ""))
    except ValueError:
        findings.append(_broken("records", "the settings of the index cannot be read"))
    return findings


def _check_tables(connection: sqlite3.Connection, meta: dict[str, str]) -> list[Finding]:
    def ask(query: str) -> list[Any]:
        return connection.execute(query).fetchall()

    findings = []
    names = tuple(row[0] for row in ask("SELECT path FROM unfinished"))
    if meta.get("in_work") == "1" or names:
        text = f"a run was ended before its end, or is at work; unfinished files: {len(names)}"
        findings.append(Finding("unfinished", "records", text, "taken out; index them again", names))
    again = "taken out of the index; index them again"
    wrong = "SELECT path FROM files WHERE chunks != (SELECT count(*) FROM chunks c WHERE c.path = files.path)"
    if names := tuple(row[0] for row in ask(wrong)):
        text = f"{len(names)} files have not all their passages: {_some(names)}"
        findings.append(Finding("missing", "records", text, again, names))
    lost = ask(f"SELECT path FROM chunks WHERE {_FINISHED} AND path NOT IN (SELECT path FROM files)")
    if lost:
        names = tuple({row[0] for row in lost})
        findings.append(Finding("orphaned", "records", f"{len(lost)} passages belong to no file", "deleted", names))
    places = "SELECT path, json_extract(metadata, '$.chunk') AS n FROM chunks WHERE json_valid(metadata)"
    if doubled := ask(f"SELECT path FROM ({places}) GROUP BY path, n HAVING count(*) > 1"):
        names = tuple(sorted({row[0] for row in doubled}))
        text = f"{len(doubled)} passages are stored twice, of {_some(names)}"
        findings.append(Finding("doubled", "records", text, again, names))
    if invalid := ask("SELECT path FROM chunks WHERE NOT json_valid(metadata)"):
        names = tuple(sorted({row[0] for row in invalid}))
        text = f"{len(invalid)} passages have metadata that cannot be read, of {_some(names)}"
        findings.append(Finding("damaged", "records", text, again, names))
    unlisted = ask("SELECT count(*) FROM chunks WHERE number NOT IN (SELECT rowid FROM terms)")[0][0]
    unlisted += ask("SELECT count(*) FROM terms WHERE rowid NOT IN (SELECT number FROM chunks)")[0][0]
    if unlisted:
        text = f"the list of words differs from the passages in {unlisted} places"
        findings.append(Finding("missing", "records", text, WORDS_AGAIN))
    return findings


def check_vectors(directory: Path, texts: dict[str, str] | None, dimension: int | None) -> list[Finding]:
    """Return what is wrong with Chroma's half.

    Args:
        directory: of the index.
        texts: the passages of the records, by their ids; None where these cannot be read.
        dimension: of the vectors, where it is known.
    """
    if not (directory / CHROMA_NAME / "chroma.sqlite3").is_file():
        gone = "all passages" if texts is None else f"all {len(texts)} passages"
        return [] if texts == {} else [_broken("vectors", f"the vectors of {gone} are gone")]
    try:
        client, collection = open_chroma(directory)
    except ImportError:
        raise
    except Exception as error:
        return [_broken("vectors", f"Chroma's files cannot be opened: {_short(error)}")]
    try:
        return _compare(collection, texts, dimension)
    except Exception as error:  # Chroma's errors have no common kind
        return [_broken("vectors", f"Chroma's files are damaged: {_short(error)}")]
    finally:
        close_chroma(client)


def _compare(collection: Any, known: dict[str, str] | None, dimension: int | None) -> list[Finding]:
    texts = known or {}
    seen: set[str] = set()
    wrong: list[str] = []
    probe: Any = None
    for key, text, vector in stored_passages(collection, "documents", "embeddings"):
        seen.add(key)
        sound = vector is not None and all(map(math.isfinite, vector)) and any(vector)
        if not sound or (dimension and len(vector) != dimension) or (key in texts and texts[key] != text):
            wrong.append(key)
        elif probe is None:
            probe = (key, vector)
    if probe is not None:  # what finds neighbours lies in files of its own
        found = collection.query(query_embeddings=[list(probe[1])], n_results=1, include=["distances"])
        if not found["ids"][0] or found["distances"][0][0] > 1e-3:
            return [_broken("vectors", "Chroma does not find a passage by its own vector")]
    if known is None:
        return []
    findings = []
    if missing := [key for key in texts if key not in seen]:
        text = f"{len(missing)} of {len(texts)} passages have no vector"
        findings.append(Finding("missing", "vectors", text, "they are embedded again", ids=tuple(missing)))
    if orphaned := [key for key in seen if key not in texts]:
        text = f"{len(orphaned)} vectors belong to no passage of the records"
        findings.append(Finding("orphaned", "vectors", text, "deleted", ids=tuple(orphaned)))
    if damaged := [key for key in wrong if key in texts]:
        text = f"{len(damaged)} passages have another text or a broken vector in Chroma"
        findings.append(Finding("damaged", "vectors", text, "they are embedded again", ids=tuple(damaged)))
    return findings


def stored_passages(collection: Any, *parts: str) -> Iterator[tuple[Any, ...]]:
    """Yield (id, part, ...) of all that Chroma holds; parts are "documents", "metadatas" and "embeddings"."""
    start = 0
    while ids := (found := collection.get(limit=_LISTED, offset=start, include=list(parts)))["ids"]:
        yield from zip(ids, *(found[part] for part in parts), strict=True)
        start += len(ids)


def _check_documents(directory: Path) -> list[Finding]:
    with closing(sqlite3.connect(f"{(directory / CATALOG_NAME).as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT path, source, hash FROM files ORDER BY source").fetchall()
    gone, changed = [], []
    for path, source, digest in rows:
        try:
            same = hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
        except OSError:
            gone.append(source)
        else:
            changed += [] if same else [source]
    told = (("are gone", gone), ("have changed", changed))
    return [
        Finding(
            "files",
            "documents",
            f"{len(names)} documents {how} since they were indexed: {_some(names)}",
            "",
            tuple(names),
        )
        for how, names in told
        if names
    ]


def _check_embedder(facts: dict[str, Any], embeddings: str | Path | Embedder | None) -> list[Finding]:
    recorded = facts.get("embeddings")
    if recorded is None:
        return []
    if embeddings is None and facts.get("kind") == "object":
        return []  # it cannot be made from its name, and was not given
    try:
        name, embedder = resolve_embedder(recorded if embeddings is None else embeddings)
        vector = list(embedder.embed_query(PROBE))
    except (OSError, ImportError, ValueError, TypeError, RuntimeError) as error:
        return [Finding("embedder", "embedder", f"the embeddings {recorded!r} cannot be used: {_short(error)}")]
    if name != recorded:
        return [Finding("embedder", "embedder", f"the index was made with the embeddings {recorded!r}, not {name!r}")]
    if facts["dimension"] not in (None, len(vector)):
        text = f"the embeddings {name!r} give {len(vector)} numbers, and the index holds {facts['dimension']}"
        return [Finding("embedder", "embedder", text)]
    if facts.get("probe") and cosine(json.loads(facts["probe"]), vector) < SAME_VECTOR:
        text = f"the embeddings {name!r} have changed since the index was made; take the earlier ones, or index again"
        return [Finding("embedder", "embedder", text)]
    return []


def _some(paths: Sequence[str]) -> str:
    return ", ".join(Path(path).name for path in paths[:5]) + (", ..." if len(paths) > 5 else "")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
