"""What a second run does, what is removed, what fails alone, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fpdf import FPDF

from minicpm_core.index import FailedFile, Index, Progress, build_index, resolve_embedder
from minicpm_core.index.words import passage_words
from minicpm_core.rag import RagSettings


class HashEmbedder:
    """Words hashed into 64 numbers; counts what it embeds."""

    def __init__(self, model: str = "hash", dimension: int = 64) -> None:
        self.model = model
        self.dimension = dimension
        self.embedded: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += texts
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.01] * self.dimension
        for word in set(passage_words(text).words):
            vector[int(hashlib.md5(word.encode()).hexdigest(), 16) % self.dimension] += 1.0
        return vector


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("The rent is 980 pounds. The deposit is two months' rent.", encoding="utf-8")
    (folder / "sub" / "b.md").write_text("## 保修\n整机保修期为两年。", encoding="utf-8")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "index"


def texts(store: Path, embedder: HashEmbedder) -> list[str]:
    with Index.open(store, embedder) as index:
        found = index.collection.get(include=["documents"])["documents"]
        assert index.count() == len(found or [])
        return sorted(found or [])


def test_first_run_stores_and_names(docs: Path, store: Path) -> None:
    embedder = HashEmbedder()
    report = build_index(docs, persist_directory=store, embeddings=embedder)
    assert report.added == ("a.txt", "sub/b.md")
    assert (report.updated, report.unchanged, report.removed, report.skipped, report.failed) == ((), (), (), (), ())
    assert report.chunks == 2
    with Index.open(store, embedder) as index:
        assert index.sources() == ["a.txt", "sub/b.md"]
        got = index.collection.get(where={"source": "sub/b.md"}, include=["metadatas", "documents"])
        assert index.directory == store
        assert index.settings == RagSettings()
        assert index.embeddings_name.endswith("HashEmbedder:hash")
    assert got["documents"] == ["## 保修\n整机保修期为两年。"]
    file = docs / "sub" / "b.md"
    assert got["metadatas"] == [
        {"source": "sub/b.md", "path": str(file), "part": 0, "start": 0, "end": 15, "chunk": 0, "heading": "保修",
         "file_hash": hashlib.sha256(file.read_bytes()).hexdigest()}
    ]  # fmt: skip


def test_second_run_adds_nothing(docs: Path, store: Path) -> None:
    build_index(docs, persist_directory=store, embeddings=HashEmbedder())
    embedder = HashEmbedder()
    report = build_index([docs, docs / "a.txt"], persist_directory=store, embeddings=embedder)
    assert report.unchanged == ("a.txt", "sub/b.md")
    assert report.added == ()
    assert embedder.embedded == []
    assert report.chunks == 2


def test_changed_file_is_replaced(docs: Path, store: Path) -> None:
    embedder = HashEmbedder()
    build_index(docs, persist_directory=store, embeddings=embedder)
    (docs / "a.txt").write_text("The rent is 990 pounds.", encoding="utf-8")
    report = build_index(docs, persist_directory=store, embeddings=embedder)
    assert report.updated == ("a.txt",)
    assert report.unchanged == ("sub/b.md",)
    assert texts(store, embedder) == ["## 保修\n整机保修期为两年。", "The rent is 990 pounds."]
    with Index.open(store, embedder) as index:
        assert max(p.coverage for p in index.search("deposit")) == 0.0


def test_deleted_file_is_removed_and_other_roots_stay(docs: Path, store: Path, tmp_path: Path) -> None:
    embedder = HashEmbedder()
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.txt").write_text("Cats sleep.", encoding="utf-8")
    single = tmp_path / "single.txt"
    single.write_text("Dogs bark.", encoding="utf-8")
    build_index([docs, other, single], persist_directory=store, embeddings=embedder)
    (docs / "a.txt").unlink()
    single.unlink()
    report = build_index(other, persist_directory=store, embeddings=embedder)
    assert report.removed == ("a.txt",)
    assert texts(store, embedder) == ["## 保修\n整机保修期为两年。", "Cats sleep.", "Dogs bark."]


def test_a_folder_that_is_gone_loses_nothing(docs: Path, store: Path) -> None:
    embedder = HashEmbedder()
    build_index(docs, persist_directory=store, embeddings=embedder)
    docs.rename(docs.with_name("unmounted"))
    report = build_index(docs, persist_directory=store, embeddings=embedder)
    assert report.failed == (FailedFile(str(docs), "does not exist; check the path"),)
    assert report.removed == ()
    assert report.chunks == 2


def test_unreadable_files_do_not_stop_the_rest(docs: Path, store: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 rubbish")
    (docs / "binary.txt").write_bytes(bytes(range(256)) * 4)
    (docs / "table.xyz").write_text("1", encoding="utf-8")
    (docs / ".hidden.txt").write_text("hidden", encoding="utf-8")
    report = build_index(
        [docs, docs / "table.xyz", docs / "none.txt"], persist_directory=store, embeddings=HashEmbedder()
    )
    assert report.added == ("a.txt", "sub/b.md")
    assert report.skipped == ("table.xyz",)
    reasons = {Path(failed.source).name: failed.reason for failed in report.failed}
    assert set(reasons) == {"broken.pdf", "binary.txt", "table.xyz", "none.txt"}
    assert "damaged" in reasons["broken.pdf"]
    assert "accepted are .pdf, .txt" in reasons["table.xyz"]
    assert "does not exist" in reasons["none.txt"]


def test_a_file_that_turned_unreadable_keeps_its_passages(docs: Path, store: Path) -> None:
    embedder = HashEmbedder()
    build_index(docs, persist_directory=store, embeddings=embedder)
    (docs / "a.txt").write_bytes(b"\x01\x02" * 50)
    report = build_index(docs, persist_directory=store, embeddings=embedder)
    assert report.failed[0].source == "a.txt"
    assert "indexed of it earlier is kept" in report.failed[0].reason
    assert report.chunks == 2


def test_nothing_to_index_is_an_error_that_says_why(tmp_path: Path, store: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(b"%PDF-1.4 rubbish")
    with pytest.raises(ValueError, match=r"nothing could be indexed.*\.html.*scan\.pdf is damaged"):
        build_index(tmp_path / "scan.pdf", persist_directory=store, embeddings=HashEmbedder())
    with pytest.raises(FileNotFoundError, match="build_index"):
        Index.open(store)
    with pytest.raises(ValueError, match="no paths are given"):
        build_index([], persist_directory=store)


def test_other_embeddings_are_refused_with_the_fix(docs: Path, store: Path) -> None:
    build_index(docs, persist_directory=store, embeddings=HashEmbedder("one"))
    for call in (
        lambda: build_index(docs, persist_directory=store, embeddings=HashEmbedder("two")),
        lambda: Index.open(store, HashEmbedder("two")),
        lambda: Index.open(store, "demo"),
    ):
        with pytest.raises(ValueError, match=r"made with the embeddings '.*:one'.*delete this folder"):
            call()
    with pytest.raises(ValueError, match="pass it again as embeddings="):
        Index.open(store)
    with pytest.raises(FileNotFoundError, match="there is no index in"):
        Index.open(store / "elsewhere")
    with (
        Index.open(store, HashEmbedder("one", dimension=8)) as index,
        pytest.raises(ValueError, match="vectors of 8 numbers"),
    ):
        index.search("rent")


def test_same_names_are_told_apart(tmp_path: Path, store: Path) -> None:
    embedder = HashEmbedder()
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "report.txt").write_text(f"Report of {folder}.", encoding="utf-8")
    first = build_index([tmp_path / "x", tmp_path / "y"], persist_directory=store, embeddings=embedder)
    assert first.added == ("x/report.txt", "y/report.txt")
    single = tmp_path / "report.txt"
    single.write_text("Third.", encoding="utf-8")
    assert build_index(single, persist_directory=store, embeddings=embedder).added == ("report.txt",)


def test_pages_are_kept_and_no_passage_crosses_them(tmp_path: Path, store: Path) -> None:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    for text in ("Rent is due on Monday.", "Deposit is two rents.", "Keys stay here."):
        document.add_page()
        document.multi_cell(0, 6, text)
    document.output(str(tmp_path / "lease.pdf"))
    embedder = HashEmbedder()
    build_index(tmp_path / "lease.pdf", persist_directory=store, embeddings=embedder)
    with Index.open(store, embedder) as index:
        pages = {p.page: (p.text, p.metadata["start"], p.metadata["end"]) for p in index.search("deposit", k=3)}
    assert pages == {
        1: ("Rent is due on Monday.", 0, 22),
        2: ("Deposit is two rents.", 0, 21),
        3: ("Keys stay here.", 0, 15),
    }


def test_changed_chunk_size_splits_anew_and_settings_are_remembered(docs: Path, store: Path) -> None:
    embedder = HashEmbedder()
    build_index(docs, persist_directory=store, embeddings=embedder)
    small = RagSettings(chunk_size=8, chunk_overlap=0, k=2)
    report = build_index(docs, persist_directory=store, embeddings=embedder, settings=small)
    assert report.updated == ("a.txt", "sub/b.md")
    assert report.chunks > 2
    assert build_index(docs, persist_directory=store, embeddings=embedder).unchanged == ("a.txt", "sub/b.md")
    with Index.open(store, embedder) as index:
        assert index.settings == small
        assert len(index.search("rent")) == 2


def test_passages_of_an_unfinished_file_are_removed_at_the_next_run(docs: Path, store: Path) -> None:
    class Failing(HashEmbedder):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            if any("Zebra" in text for text in texts):
                raise RuntimeError("out of memory")
            return super().embed_documents(texts)

    embedder = Failing()
    many = " ".join(f"Sentence number {n} is here." for n in range(60))
    (docs / "z.txt").write_text(f"{many} Zebra.", encoding="utf-8")
    settings = RagSettings(chunk_size=8, chunk_overlap=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        build_index(docs, persist_directory=store, embeddings=embedder, settings=settings)
    (docs / "z.txt").unlink()
    report = build_index(docs, persist_directory=store, embeddings=embedder)
    assert report.unchanged == ("a.txt", "sub/b.md")
    assert not [text for text in texts(store, embedder) if "Sentence number" in text]


def test_progress_reaches_the_total(docs: Path, store: Path) -> None:
    seen: list[Progress] = []
    build_index(docs, persist_directory=store, embeddings=HashEmbedder(), on_progress=seen.append)
    assert seen[0] == Progress(0, 2, "a.txt", 0)
    assert seen[-1] == Progress(2, 2, "", 2)


def test_search_gives_exactly_k_different_texts(tmp_path: Path, store: Path) -> None:
    embedder = HashEmbedder()
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(30):
        (folder / f"same{n}.txt").write_text("The same sentence about rent.", encoding="utf-8")
    for n in range(6):
        (folder / f"other{n}.txt").write_text(f"Thing number {n} is blue.", encoding="utf-8")
    build_index(folder, persist_directory=store, embeddings=embedder)
    with Index.open(store, embedder) as index:
        for k in (1, 4, 7):
            found = index.search("the same sentence about rent", k=k)
            assert len(found) == k
            assert len({p.text for p in found}) == k
            assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
        assert len(index.search("rent", k=50)) == 7
        assert index.search("the same sentence about rent")[0].coverage == 1.0
        with pytest.raises(ValueError, match="k is 0"):
            index.search("rent", k=0)
        with pytest.raises(ValueError, match="the query is empty"):
            index.search("  ")
        with pytest.raises(TypeError, match="query is a NoneType; accepted: a text"):
            index.search(None)  # type: ignore[arg-type]
        assert len(index.search("rent " + " ".join(f"word{n}" for n in range(5000)))) == 4


def test_chinese_pairs_and_folded_words_are_found(docs: Path, store: Path) -> None:
    embedder = HashEmbedder()
    (docs / "c.txt").write_text("Both batteries were charged.", encoding="utf-8")
    build_index(docs, persist_directory=store, embeddings=embedder)
    with Index.open(store, embedder) as index:
        hit = index.search("保修期是多久？")[0]
        assert (hit.source, hit.coverage) == ("sub/b.md", 1.0)
        assert index.search("charging a battery")[0].source == "c.txt"
        assert index.search("charging a battery")[0].coverage == 1.0
        assert index.search("年")[0].source == "sub/b.md"


def test_search_from_several_threads(docs: Path, store: Path) -> None:
    embedder = HashEmbedder()
    build_index(docs, persist_directory=store, embeddings=embedder)
    results: list[str] = []
    with Index.open(store, embedder) as index:
        threads = [
            threading.Thread(target=lambda: results.extend(index.search("rent", k=1)[0].source for _ in range(5)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == ["a.txt"] * 20


def test_resolve_embedder_names() -> None:
    embedder = HashEmbedder("m")
    assert resolve_embedder(embedder) == (f"{__name__}.HashEmbedder:m", embedder)
    assert resolve_embedder(None)[0] == "intfloat/multilingual-e5-small"
    assert resolve_embedder("demo")[1] is resolve_embedder("demo")[1]
    with pytest.raises(TypeError, match="embeddings is a int; accepted"):
        resolve_embedder(5)  # type: ignore[arg-type]


def test_import_is_light() -> None:
    code = "import sys, minicpm_core.index; print([m for m in ('torch', 'chromadb', 'pypdfium2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
