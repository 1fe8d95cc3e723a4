"""`map_files=`: other processes read, cut and embed; the index is the one that a single process makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF

from minicpm_core.index import Index, build_index, spread
from minicpm_core.rag import RagSettings
from tests.chroma_servers import ChromaProcess, running
from tests.killed_build import WordEmbedder
from tests.noting_embedder import NotingEmbedder
from tests.test_chroma_server import contents

SETTINGS = RagSettings(chunk_size=12, chunk_overlap=0)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(9):
        sentences = (f"File {n} has the sentence number {m} about lamp {m * n}." for m in range(60 if n == 3 else 5))
        (folder / f"f{n}.txt").write_text(" ".join(sentences), encoding="utf-8")
    document = FPDF()
    document.set_font("Helvetica", size=12)
    for text in ("Rent is due on Monday.", "The sentence number 79 about lamp 237 is here."):
        document.add_page()
        document.multi_cell(0, 6, text)
    document.output(str(folder / "lease.pdf"))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 rubbish")
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def who_embedded(notes: Path) -> dict[int, int]:
    return {int(file.name): len(file.read_text()) for file in notes.iterdir()}


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaProcess]:
    with running(tmp_path_factory.mktemp("chroma")) as server:
        yield server


@pytest.mark.enable_socket
def test_two_dask_workers_and_a_chroma_server(
    docs: Path, tmp_path: Path, notes: Path, chroma: ChromaProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "Dask is not installed: pip install distributed"
    distributed = pytest.importorskip("distributed", reason=reason)
    monkeypatch.setattr(spread, "WINDOW", 4)
    place: dict[str, Any] = {"persist_directory": tmp_path / "copy", "chroma_url": f"{chroma.url}/spread"}
    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        workers = set(client.run(os.getpid).values())
        embedder = NotingEmbedder(notes)
        with client.get_executor() as executor:
            report = build_index(docs, embeddings=embedder, settings=SETTINGS, map_files=executor.map, **place)
            again = build_index(docs, embeddings=embedder, settings=SETTINGS, map_files=executor.map, **place)
    assert set(who_embedded(notes)) == workers
    assert len(workers) == 2
    assert sum(who_embedded(notes).values()) == report.chunks
    assert [failed.source for failed in report.failed] == ["broken.pdf"]
    assert (len(report.added), again.unchanged) == (10, report.added)
    build_index(docs, embeddings=WordEmbedder(), settings=SETTINGS, persist_directory=tmp_path / "local")
    assert contents(**place) == contents(persist_directory=tmp_path / "local")


def test_a_pool_of_processes_does_for_a_folder(docs: Path, tmp_path: Path, notes: Path) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        options: dict[str, Any] = {"embeddings": NotingEmbedder(notes), "settings": SETTINGS, "map_files": pool.map}
        report = build_index(docs, persist_directory=tmp_path / "one", **options)
        (docs / "f1.txt").write_text("A kettle boils. It sings.", encoding="utf-8")
        before = sum(who_embedded(notes).values())
        assert before == report.chunks
        assert build_index(docs, persist_directory=tmp_path / "one", **options).updated == ("f1.txt",)
    assert sum(who_embedded(notes).values()) == before + 1
    assert os.getpid() not in who_embedded(notes)
    build_index(docs, embeddings=WordEmbedder(), settings=SETTINGS, persist_directory=tmp_path / "two")
    assert contents(persist_directory=tmp_path / "one") == contents(persist_directory=tmp_path / "two")


def test_what_the_others_leave_is_embedded_here(docs: Path, tmp_path: Path, notes: Path) -> None:
    def lose_some(work: Any, tasks: list[Any]) -> Iterator[Any]:
        """Workers that see other contents than the process that stores, or none."""
        for n, task in enumerate(tasks):
            yield work(task) if n % 2 else spread.EmbeddedFile([], [])

    embedder = WordEmbedder()
    build_index(docs, embeddings=embedder, settings=SETTINGS, persist_directory=tmp_path / "one", map_files=lose_some)
    build_index(docs, embeddings=WordEmbedder(), settings=SETTINGS, persist_directory=tmp_path / "two")
    assert contents(persist_directory=tmp_path / "one") == contents(persist_directory=tmp_path / "two")


def test_another_model_elsewhere_is_refused(docs: Path, tmp_path: Path, notes: Path) -> None:
    embedder = NotingEmbedder(notes, home=os.getpid())  # gives other vectors in other processes
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with pytest.raises(ValueError, match="install the same model on every machine"):
            build_index(
                docs, embeddings=embedder, settings=SETTINGS, persist_directory=tmp_path / "one", map_files=pool.map
            )
    with pytest.raises(FileNotFoundError):
        Index.open(tmp_path / "one", embedder)
