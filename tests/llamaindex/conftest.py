"""What LlamaIndex keeps globally is put back after each test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="LlamaIndex is not installed")

from llama_index.core.base.embeddings.base import BaseEmbedding

TEXTS = {
    "lamp.txt": "The Aurora desk lamp has a warranty of two years. It costs 35 EUR and weighs 800 grams.",
    "returns.txt": "Goods may be returned within fourteen days. The customer pays for the parcel.",
    "staff.txt": "Anna Keller leads the warehouse in Hamburg. Her office opens at eight in the morning.",
    "zh.txt": "台灯的保修期为两年。北京的仓库由王芳负责。",
}


class WordEmbedding(BaseEmbedding):
    """A vector of hashed words: texts are near each other when they share words."""

    model_name: str = "words"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector = [0.01] * 64
        for word in query.lower().replace(".", " ").replace("?", " ").split():
            vector[hashlib.sha256(word.encode()).digest()[0] % 64] += 1.0
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_query_embedding(text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # models this small are slowed down by threads that wait for each other


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four short files, one of them Chinese."""
    folder = tmp_path_factory.mktemp("documents")
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def index_folder(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an index of these files."""
    from llamaindex_minicpm import build_index

    folder = tmp_path_factory.mktemp("index")
    build_index(documents, persist_directory=folder, embeddings=WordEmbedding())
    return folder


@pytest.fixture(scope="session")
def index(index_folder: Path) -> Iterator[Any]:
    """The index as LlamaIndex's VectorStoreIndex."""
    from llamaindex_minicpm import load_index

    index = load_index(index_folder, embeddings=WordEmbedding())
    yield index
    index.close()


@pytest.fixture(autouse=True)
def _same_settings() -> Iterator[None]:
    import llama_index.core
    from llama_index.core import Settings

    before = dict(vars(Settings)), llama_index.core.global_tokenizer
    yield
    vars(Settings).clear()
    vars(Settings).update(before[0])
    llama_index.core.global_tokenizer = before[1]
