"""The vision model and the embedder of pages, both real and small, share one limit of memory in both frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langchain_minicpm import ChatMiniCPM, create_rag_chain
from langchain_minicpm import load_index as load_for_langchain
from llamaindex_minicpm import MiniCPM, create_query_engine
from llamaindex_minicpm import load_index as load_for_llamaindex
from minicpm_core import Engine, load
from minicpm_core.index import build_index
from minicpm_core.index.page_models import NamedPageEmbedder, resolve_page_embedder
from tests.scanned import CLEANING, WARRANTY, write_scan
from tests.test_index_build import HashEmbedder
from tests.toy_minicpmv import write_minicpmv

QUESTION = "How long is the warranty?"
LOADING: dict[str, Any] = {"dtype": "float32", "quantization": "none", "context_window": 512}


class Texts(HashEmbedder):
    """Text embeddings that tell what they take."""

    memory_bytes = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a vision model, an embedder of pages, and an index that it made."""
    folder = tmp_path_factory.mktemp("pages")
    write_minicpmv(folder / "vision", "2.6")
    write_minicpmv(folder / "visrag", "2.0")
    write_scan(folder / "manual.pdf", WARRANTY, CLEANING)
    options: dict[str, Any] = {"embeddings": Texts(), "page_embeddings": str(folder / "visrag")}
    build_index(folder / "manual.pdf", persist_directory=folder / "index", pages="auto", **options)
    return folder


@pytest.fixture
def together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Return a list of what is loaded or used, and whether the other one lies in memory at that time."""
    seen: list[tuple[str, bool]] = []
    engines: list[Engine] = []
    _, embedder = resolve_page_embedder(str(folder / "visrag"))
    assert isinstance(embedder, NamedPageEmbedder)
    embedder.release()
    init, generate, load_embedder = Engine.__init__, Engine._generate, NamedPageEmbedder._load

    def start(self: Engine, *args: Any, **options: Any) -> None:
        seen.append(("model is loaded", embedder._model is not None))
        engines.append(self)
        init(self, *args, **options)

    def answer(self: Engine, *args: Any) -> Any:
        seen.append(("model answers", embedder._model is not None))
        return generate(self, *args)

    def embed(self: NamedPageEmbedder) -> Any:
        what = "embedder is used" if self._model is not None else "embedder is loaded"
        seen.append((what, any(engine.model is not None for engine in engines)))
        return load_embedder(self)

    monkeypatch.setattr(Engine, "__init__", start)
    monkeypatch.setattr(Engine, "_generate", answer)
    monkeypatch.setattr(NamedPageEmbedder, "_load", embed)
    return seen


def measure(folder: Path) -> tuple[int, int]:
    """Return the bytes of the vision model as it is planned, and of the embedder."""
    with load(folder / "vision", **LOADING) as engine:
        return engine.memory_report()["total"], (folder / "visrag" / "model.safetensors").stat().st_size


def ask(kind: str, folder: Path, limit: int, times: int) -> None:
    options: dict[str, Any] = {**LOADING, "model": str(folder / "vision"), "memory_limit": limit}
    options |= {"temperature": 0.0, "max_tokens": 2}
    given: dict[str, Any] = {"embeddings": Texts(), "page_embeddings": str(folder / "visrag")}
    if kind == "langchain":
        index = load_for_langchain(folder / "index", **given)
        chat = ChatMiniCPM(**options)
        chain = create_rag_chain(chat, index)
        for _ in range(times):
            assert len(chain.invoke(QUESTION)["context"]) == 2
        chat.load_engine().close()
        index.index.close()
        return
    opened = load_for_llamaindex(folder / "index", **given)
    llm = MiniCPM(**options)
    query = create_query_engine(opened, llm)
    for _ in range(times):
        assert len(query.query(QUESTION).source_nodes) == 2
    llm.load_engine().close()
    opened.close()


@pytest.mark.parametrize("kind", ["langchain", "llamaindex"])
def test_beyond_the_limit_they_never_lie_in_memory_together(
    kind: str, folder: Path, together: list[tuple[str, bool]]
) -> None:
    model, embedder = measure(folder)
    together.clear()
    ask(kind, folder, model + embedder // 2, 2)
    turns = ["embedder is loaded", "model is loaded", "model answers"]
    assert [what for what, _ in together if what != "embedder is used"] == turns * 2
    assert not any(beside for _, beside in together)


@pytest.mark.parametrize("kind", ["langchain", "llamaindex"])
def test_within_the_limit_both_stay(kind: str, folder: Path, together: list[tuple[str, bool]]) -> None:
    model, embedder = measure(folder)
    together.clear()
    ask(kind, folder, model + 2 * embedder, 3)
    loaded = [what for what, _ in together if what.endswith("loaded")]
    assert loaded.count("model is loaded") == 1
    assert loaded.count("embedder is loaded") <= 2, "its size is known after the first time"
    assert together[-1] == ("model answers", True)
