"""Disks, files and clocks that fail an index: a clear, typed error each time, and an index that opens afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minicpm_app.cli import main
from minicpm_core import IndexDamagedError, IndexLockedError, IndexStorageError
from minicpm_core.index import Index, build_index, catalog
from minicpm_core.index.catalog import CATALOG_NAME
from minicpm_core.index.faults import explain, probe
from tests.killed_build import SETTINGS, WordEmbedder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and mounts of Linux")
ROOT = Path(__file__).parent.parent
FILES = 4
CHROMA_DB = "chroma/chroma.sqlite3"


def write_docs(folder: Path, files: int = FILES, sentences: int = 4) -> Path:
    folder.mkdir()
    for n in range(files):
        texts = (f"File {n} has the sentence number {m} about lamp {m * n}." for m in range(sentences))
        (folder / f"f{n}.txt").write_text(" ".join(texts), encoding="utf-8")
    return folder


def build(docs: Path, store: Path, **options: Any) -> Any:
    return build_index(docs, persist_directory=store, embeddings=WordEmbedder(), settings=SETTINGS, **options)


def check_sound(store: Path, files: int = FILES) -> None:
    """The index opens, holds all files, and both halves answer."""
    with Index.open(store, WordEmbedder()) as index:
        assert len(index.sources()) == files
        assert index.collection.count() == index.count() > 0
        assert index.search("sentence number 3 lamp", k=1, ways="dense")[0].text
        assert index.search("sentence number 3 lamp", k=1, ways="lexical")[0].text


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_docs(tmp_path_factory.mktemp("faults") / "docs")


@pytest.fixture(scope="module")
def whole(docs: Path) -> Path:
    build(docs, docs.parent / "whole")
    return docs.parent / "whole"


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy of a sound index, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "store"))


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def test_a_disk_that_fills_while_indexing_is_told_and_what_was_finished_stays(tmp_path: Path) -> None:
    many = write_docs(tmp_path / "docs", files=8, sentences=60)
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=700k", "tmpfs", at=disk):
        with pytest.raises(IndexStorageError, match=r"cannot be written: the disk is full .*; make room") as told:
            build(many, disk / "store")
        assert told.value.errno == errno.ENOSPC
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        if (disk / "store" / CATALOG_NAME).is_file():
            with Index.open(disk / "store", WordEmbedder()) as index:  # opens before anything is mended
                assert 0 < len(index.sources()) < 8
        report = build(many, disk / "store")
        assert len(report.added) + len(report.unchanged) == 8
        check_sound(disk / "store", files=8)


_LIMITED = """
import resource, sys
from pathlib import Path
from tests.test_faults_index import build
limit = int(sys.argv[3])
def begin(progress):
    if progress.done == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
build(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=begin)
"""


def test_a_file_that_may_not_grow_is_told_and_the_index_goes_on(tmp_path: Path) -> None:
    many = write_docs(tmp_path / "docs", files=6, sentences=40)
    command = [sys.executable, "-c", _LIMITED, str(many), str(tmp_path / "store"), "20000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("minicpm_core.errors.Index")
    assert str(tmp_path / "store") in last
    with Index.open(tmp_path / "store", WordEmbedder()) as index:
        assert 0 < len(index.sources()) < 6
    build(many, tmp_path / "store")
    check_sound(tmp_path / "store", files=6)


def test_a_read_only_disk_is_told(store: Path, docs: Path, tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    with mounted("--bind", str(store), at=place):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        for act in (lambda: Index.open(place, WordEmbedder()), lambda: build(docs, place)):
            with pytest.raises(IndexStorageError, match=r"the disk is read-only .* copy the index to a folder") as told:
                act()
            assert told.value.errno == errno.EROFS
    check_sound(store)


_UNPRIVILEGED = """
import os, sys
from pathlib import Path
from minicpm_core import IndexStorageError
from minicpm_core.index import Index
from tests.killed_build import WordEmbedder
from tests.test_faults_index import build
import chromadb
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
for act in (lambda: Index.open(Path(sys.argv[2]), WordEmbedder()), lambda: build(Path(sys.argv[1]), Path(sys.argv[2]))):
    try:
        act()
    except IndexStorageError as error:
        print(error.errno, error)
"""


def test_a_folder_without_the_right_to_write_is_told(whole: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to others
        store = Path(shutil.copytree(whole, Path(folder) / "store"))
        write_docs(Path(folder) / "docs")
        for path in (store, *store.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        command = [sys.executable, "-c", _UNPRIVILEGED, f"{folder}/docs", str(store)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        lines = done.stdout.splitlines()
        assert len(lines) == 2, done.stderr
        assert all(f"the index in {store} cannot be written: this user may not write there" in line for line in lines)
        for path in (store, *store.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        check_sound(store)


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _scramble(file: Path) -> None:
    file.write_bytes(b"\xa5" * file.stat().st_size)


def _segment(act: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Damage the folder of Chroma's vectors."""
    return lambda store: [act(folder) for folder in (store / "chroma").iterdir() if folder.is_dir()]


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "records cut off": lambda store: _truncate(store / CATALOG_NAME),
    "records scrambled": lambda store: _scramble(store / CATALOG_NAME),
    "records gone": lambda store: (store / CATALOG_NAME).unlink(),
    "records empty": lambda store: os.truncate(store / CATALOG_NAME, 0),
    "settings scrambled": lambda store: _set(store, "settings", "{broken"),
    "vectors gone": lambda store: shutil.rmtree(store / "chroma"),
    "vectors' records gone": lambda store: (store / CHROMA_DB).unlink(),
    "vectors' records scrambled": lambda store: _scramble(store / CHROMA_DB),
    "vectors' records cut off": lambda store: _truncate(store / CHROMA_DB),
}


def _set(store: Path, key: str, value: str) -> None:
    with sqlite3.connect(store / CATALOG_NAME) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    connection.close()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_index_is_told_and_names_the_command_that_mends_it(store: Path, name: str) -> None:
    DAMAGES[name](store)
    for _ in range(2):  # the second try tells the same
        with pytest.raises(IndexDamagedError, match=rf"the index in {store} is damaged \(.*--repair"):
            Index.open(store, WordEmbedder())


@pytest.mark.parametrize("name", ["records gone", "records empty"])
def test_a_run_over_lost_records_does_not_throw_the_vectors_away(store: Path, tmp_path: Path, name: str) -> None:
    DAMAGES[name](store)
    before = (store / CHROMA_DB).read_bytes()
    with pytest.raises(IndexDamagedError, match="its vectors are there, its records"):
        build(write_docs(tmp_path / "other", files=1), store)
    assert (store / CHROMA_DB).read_bytes() == before


@pytest.mark.parametrize("name", ["vectors gone", "vectors' records gone"])
def test_a_run_puts_lost_vectors_back(store: Path, docs: Path, name: str) -> None:
    DAMAGES[name](store)
    assert "had no vector any more" in build(docs, store).notes[0]
    check_sound(store)


def test_the_command_tells_a_damaged_index_in_one_line(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGES["records cut off"](store)
    assert main(["ask", "Who?", "--index", str(store), "--model", "demo"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"minicpm ask: error: the index in {store} is damaged")
    assert error.count("\n") == 1


def test_records_that_another_program_locks_are_told(store: Path, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "BUSY_SECONDS", 0.05)
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(300)"
    )
    command = [sys.executable, "-c", code, str(store / CATALOG_NAME)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        for act in (lambda: Index.open(store, WordEmbedder()), lambda: build(docs, store)):
            with pytest.raises(IndexLockedError, match=rf"the index in {store} is locked by another program .* wait"):
                act()
        child.kill()
    check_sound(store)


def test_files_that_disappear_while_indexing_are_told_and_the_others_stored(tmp_path: Path) -> None:
    many = write_docs(tmp_path / "docs")

    def remove(progress: Any) -> None:
        if progress.done == 1:
            (many / "f2.txt").unlink(missing_ok=True)

    report = build(many, tmp_path / "store", on_progress=remove)
    assert report.added == ("f0.txt", "f1.txt", "f3.txt")
    assert [(failed.source, failed.reason) for failed in report.failed] == [("f2.txt", "No such file or directory")]
    check_sound(tmp_path / "store", files=3)
    assert build(many, tmp_path / "store").failed == ()


def test_a_folder_of_documents_that_disappears_does_not_empty_the_index(tmp_path: Path) -> None:
    many = write_docs(tmp_path / "docs")
    build(many, tmp_path / "store")
    shutil.rmtree(many)
    report = build(many, tmp_path / "store")
    assert [failed.reason for failed in report.failed] == ["does not exist; check the path"]
    check_sound(tmp_path / "store")


def test_a_folder_of_the_index_that_disappears_while_indexing_is_told(tmp_path: Path) -> None:
    many = write_docs(tmp_path / "docs")

    def remove(progress: Any) -> None:
        if progress.done == 2:
            shutil.rmtree(tmp_path / "store", ignore_errors=True)

    with pytest.raises((IndexStorageError, IndexDamagedError), match=str(tmp_path / "store")):
        build(many, tmp_path / "store", on_progress=remove)
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    build(many, tmp_path / "store")
    check_sound(tmp_path / "store")


@pytest.mark.parametrize("moved", [-10 * 365 * 86400, 10 * 365 * 86400])
def test_clocks_that_jump_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: float) -> None:
    many = write_docs(tmp_path / "docs")
    build(many, tmp_path / "store")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + moved)
    for file in many.iterdir():
        os.utime(file, (now() - moved, now() - moved))
    file = many / "f1.txt"
    times = file.stat()
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("lamp", "bulb"), encoding="utf-8")  # as long as before
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = build(many, tmp_path / "store")
    assert (report.updated, len(report.unchanged), report.seconds >= 0) == (("f1.txt",), FILES - 1, True)
    check_sound(tmp_path / "store")


def test_what_disks_say_is_told_apart(tmp_path: Path) -> None:
    cases: dict[str, type[Exception]] = {
        "database is locked": IndexLockedError,
        "database disk image is malformed": IndexDamagedError,
        "file is not a database": IndexDamagedError,
    }
    for text, kind in cases.items():
        assert type(explain(sqlite3.OperationalError(text), tmp_path)) is kind
    assert type(explain(sqlite3.OperationalError("database is locked"), tmp_path / "gone")) is IndexLockedError
    gone = explain(sqlite3.OperationalError("disk I/O error"), tmp_path / "gone")
    assert isinstance(gone, IndexStorageError)
    assert gone.errno == errno.ENOENT
    inside = explain(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x")), tmp_path)
    assert isinstance(inside, IndexStorageError)
    assert explain(OSError(errno.ENOSPC, "No space left on device", "/elsewhere/x"), tmp_path) is None
    assert explain(OSError(errno.ENOENT, "No such file", str(tmp_path / "x")), tmp_path) is None
    assert probe(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
