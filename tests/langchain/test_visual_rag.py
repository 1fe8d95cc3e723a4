"""Questions over scanned pages: the model is shown the page, and citations name file and page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel

from langchain_minicpm import ChatMiniCPM, MiniCPMLLM, build_index, create_rag_chain, load_index
from tests.langchain.conftest import Recorder
from tests.scanned import CLEANING, WARRANTY, write_scan
from tests.test_index_build import HashEmbedder
from tests.toy_minicpmv import write_minicpmv

QUESTION = "How long is the warranty?"


@pytest.fixture
def scanned(tmp_path: Path) -> Any:
    write_scan(tmp_path / "manual.pdf", WARRANTY, CLEANING)
    (tmp_path / "lease.txt").write_text("The rent is 980 pounds.", encoding="utf-8")
    options: dict[str, Any] = {"embeddings": HashEmbedder(), "page_embeddings": "demo"}
    report = build_index(
        [tmp_path / "manual.pdf", tmp_path / "lease.txt"],
        persist_directory=tmp_path / "index",
        pages="image",
        **options,
    )
    assert (report.pages, report.chunks) == (2, 1)
    index = load_index(tmp_path / "index", **options)
    yield index
    index.index.close()


def test_the_model_sees_the_page_and_names_it(scanned: Any, recorder: Recorder) -> None:
    chain = create_rag_chain(FakeListChatModel(responses=["Two years [1]."]), scanned)
    output = chain.invoke(QUESTION, {"callbacks": [recorder]})
    assert output["citations"] == [{"n": 1, "source": "manual.pdf", "page": 1, "quote": ""}]
    first = output["context"][0]
    assert Path(first.metadata["thumbnail"]).is_file()
    ((_, human),) = recorder.prompts
    kinds = [part["type"] for part in human.content]
    assert kinds == ["text", "image_url", "text", "image_url", "text", "text"]  # as LangChain traces pictures
    assert [part["text"] for part in human.content if part["type"] == "text"] == [
        "[1]", "[2]", "[3] The rent is 980 pounds.", f"Question: {QUESTION}",
    ]  # fmt: skip
    assert human.content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_a_vision_model_answers_under_the_grammar(scanned: Any, tmp_path: Path) -> None:
    folder = write_minicpmv(tmp_path / "vision", "2.6")
    llm = ChatMiniCPM(model=str(folder), dtype="float32", quantization="none", temperature=0.0, max_tokens=12)
    chain = create_rag_chain(llm, scanned)
    pieces = list(chain.stream(QUESTION))
    assert [document.metadata["source"] for document in pieces[0]["context"]][:2] == ["manual.pdf", "manual.pdf"]
    seen = llm.load_engine()
    assert seen.family.vision is not None
    answer = "".join(piece.get("answer", "") for piece in pieces)
    assert answer == chain.invoke(QUESTION)["answer"]
    llm.load_engine().close()


def test_the_engine_and_the_embedders_take_turns(scanned: Any, tmp_path: Path) -> None:
    from minicpm_core.index.word_shapes import WordShapes

    events: list[str] = []

    class Watched(WordShapes):
        memory_bytes = 2**40

        def embed_query(self, text: str) -> list[float]:
            events.append("pages" if llm_is_closed() else "pages beside the model")
            return super().embed_query(text)

        def release(self) -> None:
            events.append("pages released")

    folder = write_minicpmv(tmp_path / "vision", "2.6")
    llm = ChatMiniCPM(
        model=str(folder), dtype="float32", quantization="none", memory_limit="2GiB", temperature=0.0, max_tokens=2
    )
    engines: list[Any] = []

    def llm_is_closed() -> bool:
        return all(engine.model is None for engine in engines)

    load = type(llm).load_engine

    def watch(self: Any, model: str | None = None) -> Any:
        engine = load(self, model)
        if engine not in engines:
            engines.append(engine)
            events.append("model")
        return engine

    scanned.index.pictures._embedder = Watched()
    scanned.index.embedder.release = lambda: events.append("texts released")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(llm), "load_engine", watch)
        chain = create_rag_chain(llm, scanned)
        chain.invoke(QUESTION)
        chain.invoke(QUESTION)
    assert "pages beside the model" not in events
    assert len(engines) == 2
    assert [event for event in events if "released" not in event] == ["pages", "model", "pages", "model"]
    loaded = events.index("model")
    assert events[loaded - 2 : loaded] == ["texts released", "pages released"]
    engines[-1].close()


def test_a_model_that_cannot_see_says_so(scanned: Any) -> None:
    for llm in (ChatMiniCPM(model="demo"), MiniCPMLLM(model="demo")):
        with pytest.raises(ValueError, match=r"manual.pdf, page 1, is a picture in the index, and demo reads"):
            create_rag_chain(llm, scanned).invoke(QUESTION)
