"""Scanned pages and pictures in an index: found by what they show, kept and removed with their files."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF
from PIL import Image

from minicpm_app.documents import describe_progress
from minicpm_core.index import FailedFile, Index, Progress, build_index, show_page
from minicpm_core.index.page_files import PageFile
from minicpm_core.index.page_models import PageReader, resolve_page_embedder
from minicpm_core.index.residence import release_unless_fitting
from minicpm_core.index.store import close_chroma, open_chroma, open_pictures
from minicpm_core.index.word_shapes import WordShapes
from minicpm_core.rag import RagSettings
from tests.scanned import BATTERY, CLEANING, WARRANTY, print_page, write_scan, write_scans
from tests.test_index_build import HashEmbedder


class Shapes(WordShapes):
    """The demo's embedder, which counts, and tells when it is used and released."""

    name = "shapes"

    def __init__(self, events: list[str] | None = None) -> None:
        self.events = [] if events is None else events
        self.seen = 0

    def embed_images(self, images: Sequence[Any]) -> list[list[float]]:
        self.seen += len(images)
        self.events.append("pages")
        return super().embed_images(images)

    def embed_query(self, text: str) -> list[float]:
        self.events.append("pages")
        return super().embed_query(text)

    def release(self) -> None:
        self.events.append("pages released")


class Texts(HashEmbedder):
    """Text embeddings that tell when they are used and released."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.events.append("texts")
        return super().embed_documents(texts)

    def release(self) -> None:
        self.events.append("texts released")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = write_scans(tmp_path / "docs")
    (folder / "lease.txt").write_text("The rent is 980 pounds.", encoding="utf-8")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "index"


def build(docs: Path, store: Path, **options: Any) -> Any:
    given: dict[str, Any] = {"embeddings": HashEmbedder(), "page_embeddings": "demo", "pages": "auto"} | options
    return build_index(docs, persist_directory=store, **given)


def vectors(store: Path) -> int:
    client, _ = open_chroma(store)
    try:
        return open_pictures(client).count()
    finally:
        close_chroma(client)


def thumbnails(store: Path) -> int:
    return len(list((store / "pages").glob("*.jpg"))) if (store / "pages").is_dir() else 0


def test_pages_are_found_by_what_they_show(docs: Path, store: Path) -> None:
    report = build(docs, store)
    assert (report.added, report.chunks, report.pages) == (("invoice.png", "lease.txt", "manual.pdf"), 1, 4)
    assert (report.failed, report.skipped, report.notes) == ((), (), ())
    expected = {
        "How long is the warranty?": ("manual.pdf", 1),
        "a damp cloth": ("manual.pdf", 2),
        "How many hours does the charger need?": ("manual.pdf", 3),
        "the amount payable": ("invoice.png", None),
        "What is the rent?": ("lease.txt", None),
    }
    with Index.open(store, HashEmbedder()) as index:
        assert (index.count(), index.count_pages()) == (1, 4)
        for question, place in expected.items():
            found = index.search(question, 5)
            assert (found[0].source, found[0].page) == place, question
            assert len(found) == 5
        page = index.search("a damp cloth", 1)[0]
        assert page.text == ""
        assert page.thumbnail == str(store / page.metadata["thumbnail"])
        with Image.open(str(page.thumbnail)) as kept:
            assert max(kept.size) == 1024
        with Image.open(io.BytesIO(show_page(page))) as shown:
            assert shown.size == (1191, 1684)


def test_pages_that_are_looked_at_are_told_and_what_was_seen_of_an_ended_run_is_kept(docs: Path, store: Path) -> None:
    told: list[tuple[str, int, int]] = []
    shapes = Shapes()

    def end_at_the_last_page(progress: Progress) -> None:
        if progress.pages:
            assert (progress.chunks, progress.total) == (0, 3)
            told.append((progress.source, progress.page, progress.pages))
        if told[-1:] == [("manual.pdf", 3, 3)]:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        build(docs, store, page_embeddings=shapes, on_progress=end_at_the_last_page)
    assert told == [("invoice.png", 1, 1), *(("manual.pdf", n, 3) for n in (1, 2, 3))]
    assert shapes.seen == 3
    told.clear()
    assert build(docs, store, page_embeddings=shapes, on_progress=lambda progress: None).pages == 4
    assert shapes.seen == 4
    line = Progress(0, 3, "manual.pdf", 0, page=2, pages=3)
    assert describe_progress(line) == "page 2 of 3, manual.pdf"


def test_only_the_wanted_places_are_searched(docs: Path, store: Path) -> None:
    build(docs, store)
    with Index.open(store, HashEmbedder()) as index:
        assert {p.source for p in index.search("warranty", 5, where={"source": "manual.pdf"})} == {"manual.pdf"}
        assert [p.page for p in index.search("warranty", 5, where={"page": {"$gte": 2}})] in ([2, 3], [3, 2])


def test_auto_takes_the_text_layer_where_there_is_one(docs: Path, store: Path) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("helvetica", size=12)
    pdf.cell(text="The password of the router is tulip.")
    pdf.add_page()
    pdf.image(print_page(CLEANING), 0, 0, 210, 297)
    pdf.add_page()  # blank
    (docs / "mixed.pdf").write_bytes(bytes(pdf.output()))
    assert build(docs / "mixed.pdf", store).pages == 1
    with Index.open(store, HashEmbedder()) as index:
        (text,) = [p for p in index.search("password", 9) if not p.thumbnail]
        assert (text.page, text.text) == (1, "The password of the router is tulip.")
        assert [p.page for p in index.search("cloth", 9) if p.thumbnail] == [2]
    report = build(docs / "mixed.pdf", store, pages="image")
    assert (report.updated, report.chunks, report.pages) == (("mixed.pdf",), 0, 2)
    assert report.notes == ("pages is 'image', and was 'auto': 1 unchanged file was indexed anew",)
    with Index.open(store, HashEmbedder()) as index:
        assert {p.page: p.text for p in index.search("password", 9)} == {
            1: "The password of the router is tulip.",
            2: "",
        }


def test_nothing_is_looked_at_twice(docs: Path, store: Path) -> None:
    shapes = Shapes()
    build(docs, store, page_embeddings=shapes)
    assert shapes.seen == 4
    again = build(docs, store, page_embeddings=shapes)
    assert (again.unchanged, again.pages, shapes.seen) == (("invoice.png", "lease.txt", "manual.pdf"), 4, 4)
    write_scan(docs / "manual.pdf", WARRANTY, BATTERY)
    changed = build(docs, store, page_embeddings=shapes)
    assert (changed.updated, changed.pages, shapes.seen) == (("manual.pdf",), 3, 6)
    assert (vectors(store), thumbnails(store)) == (3, 3)


def test_deleted_files_leave_both_collections_and_their_thumbnails(docs: Path, store: Path) -> None:
    build(docs, store)
    assert (vectors(store), thumbnails(store)) == (4, 4)
    (docs / "manual.pdf").unlink()
    report = build(docs, store)
    assert (report.removed, report.pages) == (("manual.pdf",), 1)
    assert (vectors(store), thumbnails(store)) == (1, 1)
    (docs / "invoice.png").unlink()
    (docs / "lease.txt").unlink()
    assert build(docs, store).removed == ("invoice.png", "lease.txt")
    assert (vectors(store), thumbnails(store)) == (0, 0)


def test_a_page_that_cannot_be_rendered_is_reported_and_tried_again(
    docs: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = PageFile.render

    def fail(self: PageFile, look: Any) -> Any:
        if look.number == 2:
            raise ValueError("is damaged")
        return render(self, look)

    with monkeypatch.context() as broken:
        broken.setattr(PageFile, "render", fail)
        for _ in range(2):
            report = build(docs, store)
            assert report.failed == (FailedFile("manual.pdf, page 2", "could not be looked at: is damaged"),)
            assert report.pages == 3
    report = build(docs, store)
    assert (report.failed, report.updated, report.pages) == ((), ("manual.pdf",), 4)
    assert report.notes == ()


def test_what_was_stored_stays_where_the_new_file_cannot_be_read(docs: Path, store: Path) -> None:
    build(docs, store)
    (docs / "manual.pdf").write_bytes(b"%PDF-1.7 cut off")
    (docs / "invoice.png").write_bytes(b"no picture")
    report = build(docs, store)
    assert {failed.source for failed in report.failed} == {"manual.pdf", "invoice.png"}
    assert all(failed.reason.endswith("what was indexed of it earlier is kept") for failed in report.failed)
    assert (report.pages, vectors(store), thumbnails(store)) == (4, 4, 4)


def test_lost_vectors_and_thumbnails_come_back(docs: Path, store: Path) -> None:
    shapes = Shapes()
    build(docs, store, page_embeddings=shapes)
    client, _ = open_chroma(store)
    client.delete_collection("minicpm_pages")
    close_chroma(client)
    report = build(docs, store, page_embeddings=shapes)
    assert report.notes == ("4 pages had no vector any more and were put back",)
    assert (vectors(store), shapes.seen) == (4, 4)


def test_pages_are_read_into_text_by_a_model_once(docs: Path, store: Path) -> None:
    sizes: list[tuple[int, int]] = []

    def read(page: Image.Image) -> str:
        sizes.append(page.size)
        return f"Page {len(sizes)} tells of tulips."

    options = {"pages": "text", "page_embeddings": None, "page_model": read}
    report = build(docs, store, **options)
    assert (report.chunks, report.pages, len(sizes)) == (5, 0, 4)
    assert (1191, 1684) in sizes
    with Index.open(store, HashEmbedder()) as index:
        found = {(p.source, p.page): p.text for p in index.search("tulips", 9)}
    assert found["manual.pdf", 3] == "Page 4 tells of tulips."
    assert found["invoice.png", None] == "Page 1 tells of tulips."
    # cut anew without the model: what it read is kept
    recut = build(docs, store, pages="text", page_embeddings=None, settings=RagSettings(chunk_size=8, chunk_overlap=0))
    assert (len(sizes), recut.failed, recut.updated[-1]) == (4, (), "manual.pdf")
    write_scan(docs / "manual.pdf", WARRANTY)
    report = build(docs, store, pages="text", page_embeddings=None)
    (failed,) = report.failed
    assert "read by" in failed.reason
    assert "pass it again as page_model=..." in failed.reason
    assert "kept" in failed.reason


def test_text_mode_says_what_it_does_not_read(docs: Path, store: Path) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("helvetica", size=12)
    pdf.cell(text="A page of text.")
    pdf.add_page()  # blank, which is nothing to tell
    pdf.add_page()
    pdf.image(print_page(CLEANING), 0, 0, 210, 297)
    (docs / "mixed.pdf").write_bytes(bytes(pdf.output()))
    report = build_index([docs, docs / "invoice.png"], persist_directory=store, embeddings=HashEmbedder())
    assert report.added == ("lease.txt", "mixed.pdf")
    assert report.skipped == ("invoice.png",)
    (note,) = report.notes
    assert note.startswith("mixed.pdf: 1 pages without a text layer were not read (3); give a vision model")
    (failed,) = report.failed
    assert failed.source == "manual.pdf"
    assert failed.reason.startswith("has no text layer; give a vision model as page_model=...")


def test_pictures_leave_an_index_that_is_told_to_hold_text(docs: Path, store: Path) -> None:
    build(docs, store)
    (docs / "manual.pdf").unlink()
    report = build_index(docs, persist_directory=store, embeddings=HashEmbedder(), pages="text")
    assert set(report.removed) == {"invoice.png", "manual.pdf"}
    assert report.notes == ("1 pictures have left the index: pages is 'text', and no page_model reads them",)
    assert (report.pages, vectors(store), thumbnails(store)) == (0, 0, 0)


def test_embedder_and_vision_model_are_never_loaded_together(docs: Path, store: Path) -> None:
    events: list[str] = []
    shapes, texts = Shapes(events), Texts(events)
    build(docs, store, embeddings=texts, page_embeddings=shapes)
    pages_end = len(events) - 1 - events[::-1].index("pages released")
    assert events[0] == "texts released"
    assert events.count("pages") == 4
    assert "texts" not in events[:pages_end]
    assert "pages" not in events[pages_end:]
    assert "texts" in events[pages_end:]
    events.clear()
    with Index.open(store, texts, shapes) as index:
        index.search("warranty")
        assert events == ["pages"]  # no limit, nothing goes
        events.clear()
        index.memory_limit = 1
        index.search("warranty")
        assert events == ["texts released", "pages", "pages released"]


def test_what_is_known_to_fit_stays() -> None:
    class Model:
        def __init__(self, size: int | None) -> None:
            self.memory_bytes, self.released = size, 0

        def release(self) -> None:
            self.released += 1

    for size, limit, released in ((4, 10, 0), (7, 10, 1), (None, 10, 1), (7, None, 0)):
        other = Model(size)
        assert release_unless_fitting(Model(4), [other], limit) is bool(released)
        assert other.released == released


def test_other_page_embeddings_are_refused(docs: Path, store: Path) -> None:
    build(docs, store)
    with pytest.raises(ValueError, match="were embedded by 'demo', not by 'shapes'"):
        build(docs, store, page_embeddings=Shapes())
    with pytest.raises(ValueError, match="page_embeddings embed pages as pictures"):
        build(docs, store, pages="text")
    with pytest.raises(ValueError, match="page_model reads pages into text"):
        build(docs, store, page_model=lambda page: "")
    with pytest.raises(ValueError, match="pages is 'pictures'"):
        build(docs, store, pages="pictures")
    with pytest.raises(TypeError, match="page_embeddings is a int"):
        resolve_page_embedder(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="page_model is a int"):
        PageReader(3)


def test_a_page_whose_file_has_changed_is_shown_as_it_was(
    docs: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(docs, store)
    with Index.open(store, HashEmbedder()) as index:
        page = index.search("warranty", 1)[0]
    write_scan(docs / "manual.pdf", CLEANING)
    with caplog.at_level(logging.WARNING), Image.open(io.BytesIO(show_page(page))) as shown:
        assert max(shown.size) == 1024
    assert "has changed since it was indexed" in caplog.text


def pack(docs: Path) -> Path:
    """Put all documents, and what is no document, into one archive."""
    with zipfile.ZipFile(docs / "all.zip", "w") as archive:
        for file in sorted(docs.iterdir()):
            if file.suffix != ".zip":
                archive.write(file, f"in/{file.name}")
                file.unlink()
        archive.writestr("in/broken.png", b"no picture")
        archive.writestr("in/cut.pdf", b"%PDF-1.7 cut off")
        archive.writestr("in/table.xyz", b"1")
    return docs / "all.zip"


def test_pages_in_an_archive_are_looked_at_as_outside(docs: Path, store: Path) -> None:
    shapes = Shapes()
    packed = pack(docs)
    report = build(docs, store, page_embeddings=shapes)
    assert (report.added, report.chunks, report.pages, shapes.seen) == (("all.zip",), 1, 4, 4)
    reasons = {failed.source: failed.reason for failed in report.failed}
    assert set(reasons) == {f"all.zip/in/{name}" for name in ("broken.png", "cut.pdf", "table.xyz")}
    assert reasons["all.zip/in/broken.png"].startswith("could not be looked at: no picture can be read")
    assert reasons["all.zip/in/cut.pdf"].startswith("is damaged or not a PDF")
    expected = {
        "How long is the warranty?": ("all.zip/in/manual.pdf", 1),
        "a damp cloth": ("all.zip/in/manual.pdf", 2),
        "How many hours does the charger need?": ("all.zip/in/manual.pdf", 3),
        "the amount payable": ("all.zip/in/invoice.png", None),
        "What is the rent?": ("all.zip/in/lease.txt", None),
    }
    with Index.open(store, HashEmbedder(), shapes) as index:
        for question, place in expected.items():
            best = index.search(question, 1)[0]
            assert (best.source, best.page) == place, question
        second = index.search("a damp cloth", 1)[0]
        with Image.open(io.BytesIO(show_page(second))) as shown:
            assert shown.size == (1191, 1684), "rendered from the archive, not the small picture"
        assert index.search("warranty", 1, where={"member": "in/manual.pdf"})[0].page == 1
    shapes.seen = 0
    again = build(docs, store, page_embeddings=shapes)  # tries again what could not be looked at, and nothing else
    assert (again.pages, again.chunks, shapes.seen) == (4, 1, 0)
    packed.unlink()
    assert build(docs, store, page_embeddings=shapes).removed == ("all.zip",)
    assert (vectors(store), thumbnails(store)) == (0, 0)


def test_pages_in_an_archive_are_read_into_text(docs: Path, store: Path) -> None:
    pack(docs)
    read: list[tuple[int, int]] = []
    report = build(docs, store, pages="text", page_embeddings=None)
    reasons = {failed.source: failed.reason for failed in report.failed}
    assert reasons["all.zip/in/invoice.png"].startswith("is a picture; set pages to 'image' or 'auto'")
    assert reasons["all.zip/in/manual.pdf"].startswith("has no text layer; give a vision model as page_model=...")
    assert report.chunks == 1

    def write(page: Image.Image) -> str:
        read.append(page.size)
        return f"Page {len(read)} tells of tulips."

    report = build(docs, store, pages="text", page_embeddings=None, page_model=write)
    assert (report.updated, report.chunks, report.pages, len(read)) == (("all.zip",), 5, 0, 4)
    with Index.open(store, HashEmbedder()) as index:
        found = {(p.source, p.page): p.text for p in index.search("tulips", 9)}
    assert found["all.zip/in/invoice.png", None] == "Page 1 tells of tulips."
    assert found["all.zip/in/manual.pdf", 3] == "Page 4 tells of tulips."
    assert found["all.zip/in/lease.txt", None] == "The rent is 980 pounds."


def test_a_tiff_of_several_pages_is_read_whole(docs: Path, store: Path) -> None:
    first, second = print_page(WARRANTY), print_page(CLEANING)
    first.save(docs / "fax.tif", save_all=True, append_images=[second])
    assert build(docs / "fax.tif", store).pages == 2
    with Index.open(store, HashEmbedder()) as index:
        assert index.search("cloth", 1)[0].page == 2
