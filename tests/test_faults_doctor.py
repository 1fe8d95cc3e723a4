"""`minicpm doctor --index`: each damage is found, named and mended, and what is good stays."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicpm_app.cli import main
from minicpm_core import IndexDamagedError
from minicpm_core.index import Index
from minicpm_core.index.catalog import CATALOG_NAME
from minicpm_core.index.check import IndexHealth, check_index
from minicpm_core.index.lock import writer_lock
from minicpm_core.index.repair import repair_index
from tests.killed_build import WordEmbedder
from tests.test_faults_index import CHROMA_DB, DAMAGES, build, check_sound, write_docs
from tests.test_index_crash import contents

FILES = 4
PASSAGES = 32
Act = Callable[[Path], Any]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_docs(tmp_path_factory.mktemp("doctor") / "docs")


@pytest.fixture(scope="module")
def whole(docs: Path) -> Path:
    build(docs, docs.parent / "whole")
    return docs.parent / "whole"


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "store"))


def sql(store: Path, *statements: str) -> None:
    with sqlite3.connect(store / CATALOG_NAME) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def chroma(store: Path, act: Callable[[Any], Any]) -> None:
    with Index.open(store, WordEmbedder()) as index:
        act(index.collection)


def kinds(health: IndexHealth) -> list[tuple[str, str]]:
    return [(finding.part, finding.kind) for finding in health.findings]


def some(collection: Any, n: int) -> list[str]:
    return sorted(collection.get(include=[])["ids"])[:n]


def change(collection: Any, **values: Any) -> None:
    collection.update(ids=some(collection, 3), **values)


def _vectors(collection: Any) -> Any:
    return collection.get(ids=some(collection, 3), include=["embeddings"])["embeddings"]


def _add_foreign(collection: Any) -> None:
    collection.add(
        ids=["x", "y"], embeddings=np.ones((2, 32), np.float32), documents=["a", "b"], metadatas=[{"path": "p"}] * 2
    )


# Damage of one half that the other half mends wholly: afterwards the index is what it was.
MENDED: dict[str, tuple[Act, list[tuple[str, str]]]] = {
    "vectors missing": (
        lambda store: chroma(store, lambda c: c.delete(ids=some(c, 3))),
        [("vectors", "missing")],
    ),
    "vectors orphaned": (lambda store: chroma(store, _add_foreign), [("vectors", "orphaned")]),
    "another text beside a vector": (
        lambda store: chroma(store, lambda c: change(c, documents=["other"] * 3, embeddings=_vectors(c))),
        [("vectors", "damaged")],
    ),
    "a vector of zeros": (
        lambda store: chroma(store, lambda c: change(c, embeddings=np.zeros((3, 32), np.float32))),
        [("vectors", "damaged")],
    ),
    "words missing": (
        lambda store: sql(store, "DELETE FROM terms WHERE rowid IN (SELECT number FROM chunks LIMIT 5)"),
        [("records", "missing")],
    ),
    "words orphaned": (
        lambda store: sql(store, "INSERT INTO terms (rowid, words, characters) VALUES (9999, 'x', 'y')"),
        [("records", "missing")],
    ),
    "vectors gone": (DAMAGES["vectors gone"], [("vectors", "damaged")]),
    "vectors' records scrambled": (DAMAGES["vectors' records scrambled"], [("vectors", "damaged")]),
    "vectors' records cut off": (DAMAGES["vectors' records cut off"], [("vectors", "damaged")]),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_the_other_half_tells_is_mended_wholly(store: Path, whole: Path, name: str) -> None:
    act, expected = MENDED[name]
    act(store)
    found = check_index(store, WordEmbedder())
    assert kinds(found) == expected
    assert not found.is_sound
    assert all(finding.text and finding.mended for finding in found.findings)
    mended = repair_index(store, WordEmbedder())
    assert (mended.findings, mended.passages, mended.files) == ((), PASSAGES, FILES)
    assert mended.repairs
    assert contents(store) == contents(whole)
    assert sorted(path.name for path in store.iterdir()) == sorted(path.name for path in whole.iterdir())


# Damage that takes files along: they are named and taken out, all others stay, and the next run takes them in again.
TAKEN_OUT: dict[str, tuple[Act, list[tuple[str, str]], int]] = {
    "passages missing": (
        lambda store: sql(store, "DELETE FROM chunks WHERE number IN (SELECT number FROM chunks LIMIT 2)"),
        [("records", "missing"), ("records", "missing"), ("vectors", "orphaned")],
        1,
    ),
    "passages doubled": (
        lambda store: sql(
            store,
            "INSERT INTO chunks (id, path, text, metadata) SELECT id || 'x', path, text, metadata FROM chunks LIMIT 1",
            "UPDATE files SET chunks = chunks + 1 WHERE path = (SELECT path FROM chunks LIMIT 1)",
        ),
        [("records", "doubled"), ("records", "missing"), ("vectors", "missing")],
        1,
    ),
    "passages without a file": (
        lambda store: sql(store, "DELETE FROM files WHERE source = 'f1.txt'"),
        [("records", "orphaned")],
        1,
    ),
    "metadata scrambled": (
        lambda store: sql(store, "UPDATE chunks SET metadata = '{' WHERE number = 1"),
        [("records", "damaged")],
        1,
    ),
    "a run that was ended": (
        lambda store: sql(store, "INSERT INTO unfinished SELECT path FROM files WHERE source = 'f2.txt'"),
        [("records", "unfinished"), ("vectors", "orphaned")],
        1,
    ),
}


@pytest.mark.parametrize("name", TAKEN_OUT)
def test_files_that_are_not_whole_are_taken_out_and_the_others_stay(
    store: Path, docs: Path, whole: Path, name: str
) -> None:
    act, expected, lost = TAKEN_OUT[name]
    act(store)
    assert kinds(check_index(store, WordEmbedder())) == expected
    mended = repair_index(store, WordEmbedder())
    assert (mended.is_sound, mended.files) == (True, FILES - lost)
    assert sum("index it again" in repair for repair in mended.repairs) == lost
    check_sound(store, FILES - lost)
    report = build(docs, store)
    assert (len(report.added), len(report.unchanged)) == (lost, FILES - lost)
    assert contents(store) == contents(whole)


@pytest.mark.parametrize("name", ["records gone", "records empty", "records scrambled"])
def test_lost_records_are_made_again_from_what_chroma_holds(store: Path, docs: Path, name: str) -> None:
    DAMAGES[name](store)
    assert ("records", "damaged") in kinds(check_index(store))
    with pytest.raises(IndexDamagedError, match="which embeddings made it; give these as embeddings="):
        repair_index(store)
    embedder = WordEmbedder()
    mended = repair_index(store, embedder)
    assert (mended.is_sound, mended.passages, mended.files) == (True, PASSAGES, FILES)
    assert len(embedder.embedded) == 3  # compared with stored vectors; nothing was embedded anew
    with Index.open(store, WordEmbedder()) as index:
        best = index.search("File 2 sentence number 3 lamp 6", k=1)[0]
        assert best.text == "File 2 has the sentence number"
        assert index.page_text(best)[best.metadata["start"] : best.metadata["end"]] == best.text
    report = build(docs, store)
    assert (len(report.updated), report.chunks, report.failed) == (FILES, PASSAGES, ())
    check_sound(store)


def test_lost_records_are_not_made_with_other_embeddings(store: Path) -> None:
    class Others(WordEmbedder):
        def embed_query(self, text: str) -> list[float]:
            return super().embed_query(text[::-1])

    DAMAGES["records gone"](store)
    with pytest.raises(ValueError, match="are not those of 'words', which gives a stored passage another"):
        repair_index(store, Others())
    assert not (store / CATALOG_NAME).exists()
    assert repair_index(store, WordEmbedder()).is_sound


def test_records_that_are_partly_damaged_are_saved_as_far_as_they_go(tmp_path: Path) -> None:
    many = write_docs(tmp_path / "docs", files=12, sentences=40)
    build(many, tmp_path / "store")
    file = tmp_path / "store" / CATALOG_NAME
    data = bytearray(file.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = os.urandom(8192)
    file.write_bytes(data)
    assert kinds(check_index(tmp_path / "store", WordEmbedder()))[0] == ("records", "damaged")
    mended = repair_index(tmp_path / "store", WordEmbedder())
    assert mended.is_sound
    assert mended.files >= 11  # what the old file does not tell, Chroma does
    build(many, tmp_path / "store")
    check_sound(tmp_path / "store", files=12)


def test_both_halves_lost_is_said_and_nothing_is_deleted(store: Path) -> None:
    DAMAGES["records scrambled"](store)
    DAMAGES["vectors' records scrambled"](store)
    before = {path: path.read_bytes() for path in (store / CATALOG_NAME, store / CHROMA_DB)}
    with pytest.raises(IndexDamagedError, match="nothing can be read of the index"):
        repair_index(store, WordEmbedder())
    assert {path: path.read_bytes() for path in before} == before


def test_embedders_that_do_not_fit_are_told(store: Path) -> None:
    class Longer(WordEmbedder):
        def embed_query(self, text: str) -> list[float]:
            return [*super().embed_query(text), 1.0]

    class Others(WordEmbedder):
        def embed_query(self, text: str) -> list[float]:
            return [-value for value in super().embed_query(text)]

    class Named(WordEmbedder):
        name = "others"

    for embedder, words in (
        (Longer(), "give 33 numbers, and the index holds 32"),
        (Others(), "have changed since the index was made"),
        (Named(), "was made with the embeddings 'words', not 'others'"),
        ("demo", "was made with the embeddings 'words', not 'demo'"),
    ):
        found = check_index(store, embedder)  # type: ignore[arg-type]
        assert kinds(found) == [("embedder", "embedder")]
        assert words in found.findings[0].text
    assert check_index(store).is_sound  # an object that is not given cannot be probed


def test_documents_that_changed_are_told_and_are_no_damage(tmp_path: Path) -> None:
    many = write_docs(tmp_path / "docs")
    build(many, tmp_path / "store")
    (many / "f0.txt").write_text("Another text.", encoding="utf-8")
    (many / "f1.txt").unlink()
    found = check_index(tmp_path / "store", WordEmbedder())
    assert [(f.kind, f.text) for f in found.findings] == [
        ("files", "1 documents are gone since they were indexed: f1.txt"),
        ("files", "1 documents have changed since they were indexed: f0.txt"),
    ]
    assert found.is_sound
    assert repair_index(tmp_path / "store", WordEmbedder()) == found


def test_nothing_is_mended_while_another_run_writes(store: Path) -> None:
    MENDED["words missing"][0](store)
    with writer_lock(store), pytest.raises(RuntimeError, match="is being written by another run"):
        repair_index(store, WordEmbedder())


def test_a_check_changes_nothing(store: Path) -> None:
    MENDED["words missing"][0](store)
    before = (store / CATALOG_NAME).read_bytes()
    check_index(store, WordEmbedder())
    assert (store / CATALOG_NAME).read_bytes() == before
    with pytest.raises(FileNotFoundError, match="there is no index in"):
        check_index(store.parent / "nowhere")


def test_the_command_checks_and_mends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many, store = write_docs(tmp_path / "docs", files=2), tmp_path / "store"
    assert main(["index", str(many), "--index", str(store), "--embeddings", "demo"]) == 0
    capsys.readouterr()
    assert main(["doctor", "--index", str(store)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "The index is sound."
    shutil.rmtree(store / "chroma")
    assert main(["doctor", "--index", str(store)]) == 1
    out = capsys.readouterr().out
    assert "passages are gone (--repair: the passages are embedded again from their texts in the records)" in out
    assert out.endswith("The index is damaged.\n")
    assert main(["doctor", "--index", str(store), "--repair", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["is_sound"]
    assert facts["findings"] == []
    assert "had no vector any more and were embedded again" in facts["repairs"][0]
    (store / CATALOG_NAME).unlink()
    assert main(["doctor", "--index", str(store), "--repair"]) == 1
    assert "--embeddings NAME" in capsys.readouterr().err
    assert main(["doctor", "--index", str(store), "--repair", "--embeddings", "demo"]) == 0
    assert "mended: the records of 2 files were saved" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--repair"], ["--index", "x", "demo"]])
def test_arguments_that_do_not_go_together_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == 1
    assert "--index" in capsys.readouterr().err
