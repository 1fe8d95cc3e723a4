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


def test_what_is_no_text_is_refused_in_words() -> None:
    embeddings = MiniCPMEmbeddings(model="demo")
    wrong: Any
    for wrong, words in (("abc", "one text is given"), (["a", None], "a NoneType is given"), ([3], "a int is given")):
        with pytest.raises(TypeError, match=f"{words}; embed_documents takes a list of texts, embed_query one text"):
            embeddings.embed_documents(wrong)
    with pytest.raises(ValueError, match=r"the text holds '\\ud83d', half of a character cut in two, at 3 of 4"):
        embeddings.embed_query("cat\ud83d")
