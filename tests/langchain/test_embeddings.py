"""LangChain's suites for embeddings, on the demo embeddings."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError

from langchain_minicpm import MiniCPMEmbeddings
from minicpm_core.index import resolve_embedder


class TestMiniCPMEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return MiniCPMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "demo"}


class TestMiniCPMEmbeddingsIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return MiniCPMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "demo"}


def test_vectors_are_those_of_the_named_model() -> None:
    embeddings = MiniCPMEmbeddings(model="demo")
    _, embedder = resolve_embedder("demo")
    assert embeddings.embed_query("a lamp") == embedder.embed_query("a lamp")
    assert embeddings.embed_documents(["a lamp", "a car"]) == embedder.embed_documents(["a lamp", "a car"])


def test_meaning_is_near() -> None:
    lamp, light, tax = MiniCPMEmbeddings(model="demo").embed_documents(["a desk lamp", "a light", "income tax law"])
    near, far = (sum(a * b for a, b in zip(lamp, other, strict=True)) for other in (light, tax))
    assert near > far + 0.2


def test_the_default_is_multilingual_and_unknown_arguments_are_refused() -> None:
    assert MiniCPMEmbeddings().model == "intfloat/multilingual-e5-small"
    with pytest.raises(ValidationError, match="device"):
        MiniCPMEmbeddings(device="cuda")
