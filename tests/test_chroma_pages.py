"""Pages that are stored as pictures, on a real Chroma server: the same as in a folder, on every machine."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from minicpm_core.index import Index, build_index, show_page
from tests.chroma_servers import ChromaProcess, running
from tests.scanned import BATTERY, WARRANTY, write_scan, write_scans
from tests.test_index_build import HashEmbedder
from tests.test_index_pages import Shapes

pytestmark = pytest.mark.enable_socket
QUESTIONS = ("How long is the warranty?", "a damp cloth", "hours of the charger", "amount payable", "What is the rent?")


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaProcess]:
    with running(tmp_path_factory.mktemp("chroma")) as server:
        yield server


@pytest.fixture
def url(chroma: ChromaProcess, request: pytest.FixtureRequest) -> str:
    return f"{chroma.url}/{request.node.name.replace('_', '-')[:60]}"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = write_scans(tmp_path / "docs")
    (folder / "lease.txt").write_text("The rent is 980 pounds.", encoding="utf-8")
    return folder


def build(docs: Path, **place: Any) -> Any:
    given: dict[str, Any] = {"embeddings": HashEmbedder(), "page_embeddings": Shapes(), "pages": "auto"} | place
    return build_index(docs, **given)


def contents(folder: Path, **place: Any) -> dict[str, Any]:
    """Return what an index holds of pages, and what searches find."""
    with Index.open(folder, HashEmbedder(), Shapes(), **place) as index:
        store = index.pictures.store
        found = store.collection.get(include=["documents", "metadatas", "embeddings"])
        vectors = [[round(float(value), 5) for value in row] for row in found["embeddings"]]  # type: ignore[union-attr]
        rows = zip(found["ids"], found["documents"] or (), vectors, found["metadatas"] or (), strict=True)
        hits = {question: index.search(question, 5) for question in QUESTIONS}
        thumbnails = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "pages").glob("*")}
        assert {Path(name).stem for name in thumbnails} == set(store.ids()) == set(found["ids"])
        return {
            "records": sorted(
                (key, path, text, sorted(json.loads(place).items()))
                for key, path, text, place in index._catalog._rows("SELECT id, path, text, metadata FROM pictures")
            ),
            "files": sorted(index._catalog.files()),
            "vectors": sorted((key, text, vector, sorted(place.items())) for key, text, vector, place in rows),
            "hits": {q: [(hit.source, hit.page, round(hit.score, 9)) for hit in h] for q, h in hits.items()},
            "thumbnails": thumbnails,
        }


def test_a_server_holds_and_finds_what_a_folder_does(docs: Path, tmp_path: Path, url: str) -> None:
    local = build(docs, persist_directory=tmp_path / "local")
    report = build(docs, persist_directory=tmp_path / "one", chroma_url=url)
    assert (report.added, report.chunks, report.pages, report.failed) == (local.added, 1, 4, ())
    shapes = Shapes()
    again = build(docs, persist_directory=tmp_path / "one", chroma_url=url, page_embeddings=shapes)
    assert (len(again.unchanged), shapes.seen) == (3, 0)
    whole = contents(tmp_path / "local")
    assert len(whole["thumbnails"]) == len(whole["vectors"]) == len(whole["records"]) == 4
    assert whole["hits"]["a damp cloth"][0][:2] == ("manual.pdf", 2)
    assert contents(tmp_path / "one", chroma_url=url) == whole
    assert contents(tmp_path / "two", chroma_url=url) == whole
    shutil.rmtree(docs)  # a machine that does not see the files
    with Index.open(tmp_path / "three", HashEmbedder(), Shapes(), chroma_url=url) as index:
        page = index.search("a damp cloth", 1)[0]
        assert page.thumbnail == str(tmp_path / "three" / page.metadata["thumbnail"])
        with Image.open(io.BytesIO(show_page(page))) as shown:
            assert max(shown.size) == 1024


def test_another_machine_goes_on(docs: Path, tmp_path: Path, url: str) -> None:
    one, two = ({"persist_directory": tmp_path / name, "chroma_url": url} for name in ("one", "two"))
    build(docs, **one)
    write_scan(docs / "manual.pdf", WARRANTY, BATTERY)
    (docs / "invoice.png").unlink()
    shapes = Shapes()
    report = build(docs, page_embeddings=shapes, **two)
    assert (report.updated, report.removed, report.pages, shapes.seen) == (("manual.pdf",), ("invoice.png",), 2, 2)
    build(docs, persist_directory=tmp_path / "local")
    whole = contents(tmp_path / "local")
    assert len(whole["thumbnails"]) == 2
    assert contents(tmp_path / "two", chroma_url=url) == whole
    assert contents(tmp_path / "one", chroma_url=url) == whole
    records = _records(tmp_path / "two", url)
    assert sorted(record["kind"] for record in records) == ["file", "file", "meta", "page", "thumbnail", "thumbnail"]
    assert build(docs, pages="text", page_embeddings=None, **one).failed[0].source == "manual.pdf"
    assert build(docs / "lease.txt", pages="text", page_embeddings=None, **one).pages == 2  # of the file that failed


def _records(folder: Path, url: str) -> list[Any]:
    with Index.open(folder, HashEmbedder(), Shapes(), chroma_url=url) as index:
        return list(index._catalog._records.get(include=["metadatas"])["metadatas"])  # type: ignore[attr-defined]


def test_a_server_that_is_killed_while_pages_are_stored(
    docs: Path, tmp_path: Path, chroma: ChromaProcess, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minicpm_core.index import served

    killed: list[str] = []
    write = served.write_thumbnails

    def outage(*given: Any) -> Iterator[Any]:
        for record in write(*given):
            killed.append(record[0])
            if len(killed) in (1, 3):
                chroma.kill()
                threading.Timer(0.3, chroma.start).start()
            yield record

    monkeypatch.setattr(served, "write_thumbnails", outage)
    report = build(docs, persist_directory=tmp_path / "one", chroma_url=url)
    assert (len(killed), report.pages, report.failed, report.notes) == (4, 4, (), ())
    build(docs, persist_directory=tmp_path / "local")
    assert contents(tmp_path / "one", chroma_url=url) == contents(tmp_path / "local")


def test_vectors_that_a_server_lost_come_back(docs: Path, tmp_path: Path, url: str) -> None:
    for machine, notes, seen in (
        ("one", ("4 pages had no vector any more and were put back",), 0),  # it has seen them
        ("two", ("2 files had pages without a vector and were taken out, to be looked at again",), 4),
        ("three", (), 4),  # it has no copy, and makes none of files that are not whole
    ):
        build(docs, persist_directory=tmp_path / "one", chroma_url=url)
        Index.open(tmp_path / "two", HashEmbedder(), Shapes(), chroma_url=url).close()
        with Index.open(tmp_path / "one", HashEmbedder(), Shapes(), chroma_url=url) as index:
            index.client.delete_collection(f"{url.rpartition('/')[2]}_pages")
        shapes = Shapes()
        report = build(docs, persist_directory=tmp_path / machine, chroma_url=url, page_embeddings=shapes)
        assert (report.notes, report.pages, shapes.seen) == (notes, 4, seen)
    build(docs, persist_directory=tmp_path / "local")
    assert contents(tmp_path / "one", chroma_url=url) == contents(tmp_path / "local")


def test_a_server_names_no_other_files(docs: Path, tmp_path: Path, url: str) -> None:
    build(docs, persist_directory=tmp_path / "one", chroma_url=url)
    with Index.open(tmp_path / "one", HashEmbedder(), Shapes(), chroma_url=url) as index:
        collection = index.pictures.store.collection
        key = collection.get(where={"source": "invoice.png"})["ids"][0]
        collection.update(ids=[key], metadatas=[{"thumbnail": "../../secret.jpg"}])
    with pytest.raises(ValueError, match=r"small picture in '../../secret.jpg', not in pages/[0-9a-f]{64}.jpg"):
        Index.open(tmp_path / "two", HashEmbedder(), Shapes(), chroma_url=url)
