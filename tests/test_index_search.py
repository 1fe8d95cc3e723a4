"""Filters on both sides, neighbours within a budget, rerankers, and what the index notices about its embeddings."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from minicpm_core.index import Index, Progress, build_index
from minicpm_core.index.filters import normalise_where, where_sql
from minicpm_core.index.reranking import CrossEncoderReranker, resolve_reranker
from minicpm_core.index.splitter import estimate_tokens
from minicpm_core.rag import RagSettings
from tests.killed_build import WordEmbedder
from tests.office_files import make_docx, make_pdf, make_pptx

SETTINGS = RagSettings(chunk_size=12, chunk_overlap=0, k=3)
STORY = [f"Sentence {word} tells of the {thing}." for word, thing in zip(
    "one two three four five six seven eight nine".split(), "sea sky sun moon rain snow wind fog hail".split(),
    strict=True,
)]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    docs = folder / "docs"
    docs.mkdir()
    (docs / "a.pdf").write_bytes(make_pdf())
    (docs / "b.docx").write_bytes(make_docx())
    (docs / "c.pptx").write_bytes(make_pptx())
    (docs / "n.txt").write_text("Nothing here is of use.", encoding="utf-8")
    (docs / "story.txt").write_text(" ".join(STORY), encoding="utf-8")
    (docs / "copy.txt").write_text("Nothing  here is of use.\n", encoding="utf-8")
    build_index(docs, persist_directory=folder / "index", embeddings=WordEmbedder(), settings=SETTINGS)
    return folder / "index"


@pytest.fixture
def index(store: Path) -> Iterator[Index]:
    with Index.open(store, WordEmbedder()) as opened:
        yield opened


FILTERS: list[tuple[dict[str, Any], bool]] = [  # and whether anything fits
    ({"page": 1}, True), ({"page": {"$ne": 1}}, True), ({"page": {"$gte": 2}}, True), ({"page": {"$lt": 2}}, True),
    ({"page": {"$in": [1, 3]}}, True), ({"page": {"$nin": [1, 3]}}, True), ({"page": 2.0}, True),
    ({"source": "a.pdf"}, True), ({"source": {"$ne": "a.pdf"}}, True), ({"heading": {"$nin": ["Fees"]}}, True),
    ({"$or": [{"page": 1}, {"source": "n.txt"}]}, True),
    ({"$and": [{"page": {"$gt": 1}}, {"source": {"$in": ["a.pdf", "c.pptx"]}}]}, True),
    ({"$or": [{"$and": [{"page": 1}, {"source": "a.pdf"}]}, {"heading": "Prices"}]}, True),
    ({"start": {"$gte": 0, "$lte": 9}, "source": "a.pdf"}, True), ({"page": "1"}, False), ({"source": 1}, False),
    ({"none": "x"}, False), ({"none": {"$ne": "x"}}, True), ({"page": True}, False), ({"source": "x' OR 1=1"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("where", "fits"), FILTERS)
def test_a_condition_means_the_same_to_chroma_and_to_sql(index: Index, where: dict[str, Any], fits: bool) -> None:
    normal = normalise_where(where)
    sql, values = where_sql(normal)
    rows = index._catalog._rows(f"SELECT id FROM chunks WHERE {sql}", values)
    assert {row[0] for row in rows} == set(index.collection.get(where=normal, include=[])["ids"])
    assert bool(rows) == fits
    found = index.search("the rent of the lamp at sea", k=100, where=where)
    assert len(found) == len({" ".join(row[0].split()) for row in
                              index._catalog._rows(f"SELECT text FROM chunks WHERE {sql}", values)})  # fmt: skip


def test_both_halves_of_the_search_are_filtered(index: Index) -> None:
    assert index.search("fee euros", k=1)[0].source == "a.pdf"
    assert index.search("fee euros", k=1, where={"source": "b.docx"})[0].source == "b.docx"
    assert {p.page for p in index.search("fee euros", k=9, where={"page": {"$gte": 2}})} == {2, 3}
    assert index.search("fee euros", k=9, where={"source": "none"}) == []
    assert len(index.search("fee", k=2, where={"source": "story.txt"})) == 2


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("source = 'a'", "where is a str; accepted is a dict"),
        ({"page": {"$like": 1}}, r"the operator '\$like' at 'page'; accepted are \$eq"),
        ({"$not": {"page": 1}}, r"the operator '\$not' outside of a key"),
        ({"page": {"$gt": "1"}}, "accepted is a whole number"),
        ({"page": 1.5}, "accepted are texts, whole numbers"),
        ({"page": None}, "accepted are texts, whole numbers"),
        ({"page": {"$in": []}}, "accepted is a list that is not empty"),
        ({"page": {"$in": [1, "2"]}}, "accepted are values of one type"),
        ({"$and": {"page": 1}}, "accepted is a list of conditions"),
        ({'pa"ge': 1}, "accepted are names of metadata"),
    ],
)
def test_conditions_that_are_not_accepted(index: Index, where: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        index.search("rent", where=where)


def test_the_same_text_of_two_files_comes_once(index: Index) -> None:
    found = index.search("nothing of use", k=50)
    assert len([p for p in found if "Nothing" in p.text]) == 1


def test_neighbours_are_joined_while_the_budget_allows(index: Index) -> None:
    (hit,) = index.search("sentence five about rain", k=1, where={"source": "story.txt"})
    assert hit.text == STORY[4]
    assert index.search("sentence five about rain", k=1, budget=0)[0] == hit
    for first, last in ((4, 4), (4, 5), (3, 5), (3, 6), (0, 8)):
        text = " ".join(STORY[first : last + 1])
        (wide,) = index.search("sentence five about rain", k=1, budget=estimate_tokens(text))
        assert wide.text == text
        place = wide.metadata
        assert index.page_text(wide)[place["start"] : place["end"]] == wide.text
        assert (wide.id, place["chunk"]) == (hit.id, 4)


def test_what_is_joined_to_one_hit_is_not_joined_to_another(index: Index) -> None:
    found = index.search("tells of rain, tells of wind", k=2, where={"source": "story.txt"}, budget=10_000)
    assert sorted(" ".join(p.text for p in sorted(found, key=lambda p: p.metadata["start"])).split(". ")) == sorted(
        " ".join(STORY).split(". ")
    )
    slides = index.search("warranty parts", k=1, where={"source": "c.pptx"}, budget=10_000)[0]
    assert slides.text == index.page_text(slides)  # the whole page, and nothing of the next one


def test_a_reranker_orders_the_candidates(index: Index) -> None:
    asked: list[tuple[str, int]] = []

    class Longest:
        def score(self, query: str, documents: Sequence[str]) -> list[float]:
            asked.append((query, len(documents)))
            return [float(len(document)) for document in documents]

    found = index.search("sentence", k=3, reranker=Longest())
    everything = index.search("sentence", k=20)
    assert [p.text for p in found] == [p.text for p in sorted(everything, key=lambda p: -len(p.text))[:3]]
    assert [p.score for p in found] == [len(p.text) for p in found]
    assert asked == [("sentence", min(20, len(everything)))]
    assert all(p.similarity is not None for p in found)


def test_rerankers_of_every_kind_are_accepted() -> None:
    class Cross:
        def predict(self, pairs: list[tuple[str, str]]) -> list[float]:
            return [float(query in document) for query, document in pairs]

    reranker = resolve_reranker(Cross())
    assert isinstance(reranker, CrossEncoderReranker)
    assert reranker.score("b", ["a", "abc"]) == [0.0, 1.0]
    assert reranker.score("b", []) == []
    assert resolve_reranker(reranker) is reranker
    with pytest.raises(TypeError, match=r"reranker is a int; accepted: an object with score\(query, documents\)"):
        resolve_reranker(5)


def test_changed_weights_under_the_same_name_are_noticed(store: Path, tmp_path: Path) -> None:
    class Other(WordEmbedder):
        def embed_query(self, text: str) -> list[float]:
            return [-value for value in super().embed_query(text)][::-1]

    with (
        Index.open(store, Other()) as index,
        pytest.raises(ValueError, match=r"'words' have changed since the index .* cosine similarity of -?0\.\d\d"),
    ):
        index.search("rent")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Rent is due.", encoding="utf-8")
    build_index(docs, persist_directory=tmp_path / "index", embeddings=WordEmbedder())
    (docs / "b.txt").write_text("Keys stay here.", encoding="utf-8")
    with pytest.raises(ValueError, match="have changed since the index"):
        build_index(docs, persist_directory=tmp_path / "index", embeddings=Other())
    assert build_index(docs, persist_directory=tmp_path / "index", embeddings=WordEmbedder()).added == ("b.txt",)


def test_another_way_to_cut_is_told_in_a_sentence(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in "ab":
        (docs / f"{name}.txt").write_text(" ".join(STORY), encoding="utf-8")
    first = build_index(docs, persist_directory=tmp_path / "index", embeddings=WordEmbedder(), settings=SETTINGS)
    assert first.notes == ()
    wider = RagSettings(chunk_size=30, chunk_overlap=5)
    report = build_index(docs, persist_directory=tmp_path / "index", embeddings=WordEmbedder(), settings=wider)
    assert report.notes == (
        "2 unchanged files were split anew: chunk_size and chunk_overlap are 30 and 5 tokens, and were 12 and 0",
    )
    assert report.updated == ("a.txt", "b.txt")


def test_a_named_file_that_is_gone_leaves(tmp_path: Path) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("Rent is due.", encoding="utf-8")
    b.write_text("Keys stay here.", encoding="utf-8")
    build_index([a, b], persist_directory=tmp_path / "index", embeddings=WordEmbedder())
    b.unlink()
    report = build_index([a, b], persist_directory=tmp_path / "index", embeddings=WordEmbedder())
    assert (report.unchanged, report.removed, report.failed) == (("a.txt",), ("b.txt",), ())
    again = build_index([a, b], persist_directory=tmp_path / "index", embeddings=WordEmbedder())
    assert [(f.source, f.reason) for f in again.failed] == [(str(b), "does not exist; check the path")]


def test_progress_tells_rate_and_remaining_time(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(4):
        (docs / f"{n}.txt").write_text(" ".join(f"Sentence {n} {m} is here." for m in range(120)), encoding="utf-8")
    seen: list[Progress] = []
    build_index(
        docs, persist_directory=tmp_path / "index", embeddings=WordEmbedder(), settings=SETTINGS,
        on_progress=seen.append,
    )  # fmt: skip
    assert [p.chunks for p in seen] == sorted(p.chunks for p in seen)
    assert seen[0].remaining is None
    assert seen[0].rate == 0.0
    assert all(p.remaining is not None and p.remaining > 0 and p.rate > 0 for p in seen[2:] if p.done < 3)
    assert (seen[-1].remaining, seen[-1].done, seen[-1].total) == (0.0, 4, 4)
    assert len({p.done for p in seen}) == 5
    assert sum(p.done == 1 for p in seen) > 2  # within a file too


def test_indexes_in_two_folders_are_built_at_once(tmp_path: Path) -> None:
    reports: dict[str, int] = {}

    def build(name: str) -> None:
        docs = tmp_path / name
        docs.mkdir()
        for n in range(5):
            (docs / f"{n}.txt").write_text(f"Sentence {n} of {name}.", encoding="utf-8")
        store = tmp_path / f"index-{name}"
        reports[name] = build_index(docs, persist_directory=store, embeddings=WordEmbedder()).chunks

    threads = [threading.Thread(target=build, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reports == {"x": 5, "y": 5, "z": 5}


def test_an_open_index_sees_what_is_indexed_beside_it(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Rent is due.", encoding="utf-8")
    build_index(docs, persist_directory=tmp_path / "index", embeddings=WordEmbedder())
    with Index.open(tmp_path / "index", WordEmbedder()) as index:
        (docs / "b.txt").write_text("A kettle sings.", encoding="utf-8")
        build_index(docs, persist_directory=tmp_path / "index", embeddings=WordEmbedder())
        best = index.search("kettle", k=1)[0]
        assert best.source == "b.txt"
        assert best.similarity == pytest.approx(1.0, abs=0.5)
