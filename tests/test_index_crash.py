"""kill -9 at any moment: no finished file is lost, one is repeated at most, and both halves of the index agree."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minicpm_core.index import Index, build_index
from minicpm_core.index.catalog import CATALOG_NAME, Catalog
from minicpm_core.index.lock import LOCK_NAME, writer_lock
from tests.killed_build import SETTINGS, WordEmbedder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")
ROOT = Path(__file__).parent.parent
FILES = 6
LONG = 3  # this file has more passages than one batch
MOMENTS = [
    ("begin_file", 3, "after"),
    ("add_page", 4, "after"),
    ("add_chunks", 5, "after"),
    ("store_chunks", 5, "after"),
    ("end_file", 3, "before"),
    ("end_file", 3, "after"),
]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(FILES):
        sentences = (f"File {n} has the sentence number {m} about lamp {m * n}." for m in range(80 if n == LONG else 5))
        (folder / f"f{n}.txt").write_text(" ".join(sentences), encoding="utf-8")
    return folder


def start(docs: Path, store: Path, *moment: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.killed_build", str(docs), str(store), *map(str, moment)]
    environment = os.environ | {"ANONYMIZED_TELEMETRY": "False"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def kill(docs: Path, store: Path, *moment: object) -> None:
    with start(docs, store, *moment) as child:
        child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL


@contextmanager
def catalog_of(store: Path) -> Iterator[Catalog]:
    catalog = Catalog(store)
    try:
        yield catalog
    finally:
        catalog.close()


def finished(store: Path) -> dict[str, int]:
    with catalog_of(store) as catalog:
        return {row.source: row.chunks for row in catalog.files().values()}


def contents(store: Path) -> dict[str, Any]:
    """Return all that an index holds, in an order of its own."""
    with catalog_of(store) as catalog:
        tables = {
            name: sorted(map(repr, catalog._rows(f"SELECT {columns} FROM {name}")))
            for name, columns in (
                ("files", "*"), ("page_texts", "*"), ("unfinished", "*"), ("chunks", "id, path, text, metadata"),
                ("terms JOIN chunks ON chunks.number = terms.rowid", "id, words, characters"),
                ("terms", "words, characters"), ("roots", "path"),
            )
        }  # fmt: skip
    with Index.open(store, WordEmbedder()) as index:
        found = index.collection.get(include=["documents", "metadatas", "embeddings"])
        embeddings: Any = found["embeddings"]
        vectors = [[round(float(value), 5) for value in row] for row in embeddings]
        chroma = sorted(zip(found["ids"], found["documents"] or [], map(repr, vectors), strict=True))
        assert {row[0] for row in chroma} == set(index._catalog.ids())
        assert len(chroma) == index.count() == sum(finished(store).values())
        best = index.search("sentence number 79 about lamp 237", k=1)[0].text
    return {"tables": tables, "chroma": chroma, "best": best}


def build(docs: Path, store: Path) -> tuple[Any, WordEmbedder]:
    embedder = WordEmbedder()
    return build_index(docs, persist_directory=store, embeddings=embedder, settings=SETTINGS), embedder


@pytest.mark.parametrize(("name", "count", "when"), MOMENTS)
def test_a_killed_run_is_gone_on_with(docs: Path, tmp_path: Path, name: str, count: int, when: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build(docs, whole)
    kill(docs, killed, name, count, when)
    kept = finished(killed)
    assert 2 <= len(kept) <= 4
    report, embedder = build(docs, killed)
    assert set(report.unchanged) == set(kept)
    assert len(report.added) == FILES - len(kept)
    assert len(embedder.embedded) == sum(finished(whole).values()) - sum(kept.values())
    assert contents(killed) == contents(whole)


def test_killed_from_outside_again_and_again(docs: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build(docs, whole)
    kept: set[str] = set()
    for lines in (2, 3, 4):
        with start(docs, killed) as child:
            assert child.stdout is not None
            for _ in range(lines):
                child.stdout.readline()
            child.kill()
        now = set(finished(killed))
        assert now >= kept
        kept = now
    report, _ = build(docs, killed)
    assert set(report.unchanged) == kept
    assert contents(killed) == contents(whole)


@pytest.mark.parametrize(("name", "when"), [("_drop", "before"), ("_drop", "after"), ("store_chunks", "after")])
def test_killed_while_a_file_is_replaced(docs: Path, tmp_path: Path, name: str, when: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    build(docs, killed)
    (docs / "f1.txt").write_text("Another text about a kettle. It has two sentences, and more.", encoding="utf-8")
    kill(docs, killed, name, 1, when)
    assert set(finished(killed)) == {f"f{n}.txt" for n in range(FILES) if n != 1}
    report, _ = build(docs, killed)
    assert (report.added, len(report.unchanged)) == (("f1.txt",), FILES - 1)
    build(docs, whole)
    assert contents(killed) == contents(whole)


def test_a_first_run_killed_before_its_first_file_leaves_no_index(docs: Path, tmp_path: Path) -> None:
    store = tmp_path / "killed"
    kill(docs, store, "end_file", 1, "before")
    with pytest.raises(FileNotFoundError, match="there is no index in"):
        Index.open(store, WordEmbedder())
    report, _ = build(docs, store)
    assert len(report.added) == FILES
    build(docs, tmp_path / "whole")
    assert contents(store) == contents(tmp_path / "whole")


def test_a_first_run_that_fails_leaves_nothing(docs: Path, tmp_path: Path) -> None:
    class Failing(WordEmbedder):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise RuntimeError("out of memory")

    store = tmp_path / "store"
    store.mkdir()
    (store / "mine.txt").write_text("Not of the index.", encoding="utf-8")
    with pytest.raises(RuntimeError, match="out of memory"):
        build_index(docs, persist_directory=store, embeddings=Failing())
    assert [path.name for path in store.iterdir()] == ["mine.txt"]


def test_lost_vectors_are_embedded_again(docs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build(docs, store)
    before = contents(store)
    with Index.open(store, WordEmbedder()) as index:
        ids = [passage.id for passage in index.search("lamp", k=7)]
        index.collection.delete(ids=ids)
    (docs / "f0.txt").unlink()  # what it said is restored from the index, and removed as usual
    (docs / "f0.txt").write_text("File 0 is another.", encoding="utf-8")
    report, embedder = build(docs, store)
    assert report.notes == ("7 passages had no vector any more and were embedded again",)
    assert report.updated == ("f0.txt",)
    assert len(embedder.embedded) == 7 + 1
    build(docs, tmp_path / "whole")
    assert contents(store) == contents(tmp_path / "whole") != before


def test_two_writers_are_refused_and_readers_are_welcome(docs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build(docs, store)
    code = (
        "import sys, time; from pathlib import Path; from minicpm_core.index.lock import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", code, store], cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=rf"written by another run \(process {child.pid}\); wait until"):
            build(docs, store)
        with Index.open(store, WordEmbedder()) as one, Index.open(store, WordEmbedder()) as two:
            assert one.search("lamp", k=3) == two.search("lamp", k=3)
        child.kill()
    assert build(docs, store)[0].added == ()  # the lock ended with the process that held it


def test_two_threads_are_refused_too(tmp_path: Path) -> None:
    with writer_lock(tmp_path):
        with pytest.raises(RuntimeError, match=f"process {os.getpid()}"), writer_lock(tmp_path):
            pass
        assert (tmp_path / LOCK_NAME).read_text() == str(os.getpid())
    with writer_lock(tmp_path):
        pass
    assert not (tmp_path / CATALOG_NAME).exists()


def open_files(folder: Path) -> set[str]:
    links = [Path(link) for link in Path("/proc/self/fd").iterdir()]
    targets = [os.readlink(link) for link in links if link.is_symlink()]
    return {target for target in targets if target.startswith(f"{folder}/")}


def wait_until_closed(folder: Path) -> None:
    """Chroma closes its connections in a thread of its own."""
    deadline = time.monotonic() + 10
    while (names := open_files(folder)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert names == set()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_what_is_closed_holds_no_file_and_its_folder_can_be_made_anew(docs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for _ in range(2):
        build(docs, store)
        wait_until_closed(store)
        with Index.open(store, WordEmbedder()) as index:
            assert index.search("lamp", k=1)
            assert any(name.endswith("chroma.sqlite3") for name in open_files(store))
        wait_until_closed(store)
        shutil.rmtree(store)


def test_an_index_that_nobody_closes_closes_its_records_when_it_is_let_go(docs: Path, tmp_path: Path) -> None:
    build(docs, tmp_path / "store")
    index: Index | None = Index.open(tmp_path / "store", WordEmbedder())
    assert index is not None
    connection, client = index._catalog._connection, index.client
    index = None
    gc.collect()
    client.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        connection.execute("SELECT 1")


def test_a_reader_of_another_process_sees_finished_files_only(docs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    build(docs, store)
    with Index.open(store, WordEmbedder()) as index:
        before = index.count()
        (docs / "new.txt").write_text("A kettle boils. It sings.", encoding="utf-8")
        kill(docs, store, "store_chunks", 1, "after")
        assert index.count() == before
        assert "new.txt" not in {passage.source for passage in index.search("kettle boils", k=before)}
        with start(docs, store) as child:
            child.communicate(timeout=120)
        assert child.returncode == 0
        assert index.search("kettle boils", k=1)[0].source == "new.txt"
