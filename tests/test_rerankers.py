"""MiniCPM's own embedding and reranking checkpoints behind the classes of both frameworks."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from langchain_minicpm import MiniCPMEmbeddings, MiniCPMReranker
from llamaindex_minicpm import MiniCPMEmbedding, MiniCPMRerank
from minicpm_core.retrieval_models import EmbeddingModel, RerankerModel
from tests.test_retrieval_models import write_reranker
from tests.toy_families import write_family

TEXTS = ["The lamp has a warranty of two years.", "保修期为两年", "hello world", "What is the name of the city?"]
QUERY = "How long is the warranty?"


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reranker(tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="module")
def ranked(reranker: Path) -> list[tuple[str, float]]:
    scores = RerankerModel(reranker, dtype="float32").score(QUERY, TEXTS)
    return sorted(zip(TEXTS, scores, strict=True), key=lambda pair: -pair[1])


async def test_langchain_documents_are_ranked(reranker: Path, ranked: list[tuple[str, float]]) -> None:
    documents = [Document(text, metadata={"source": str(n)}) for n, text in enumerate(TEXTS)]
    compressor = MiniCPMReranker(model=str(reranker), dtype="float32", top_n=3)
    found = compressor.compress_documents(documents, QUERY)
    assert [document.page_content for document in found] == [text for text, _ in ranked[:3]]
    assert [d.metadata["relevance_score"] for d in found] == pytest.approx([score for _, score in ranked[:3]])
    assert found[0].metadata["source"] == str(TEXTS.index(ranked[0][0]))
    assert "relevance_score" not in documents[0].metadata
    assert await compressor.acompress_documents(documents, QUERY) == found
    assert compressor.compress_documents([], QUERY) == []


async def test_llama_index_nodes_are_ranked(reranker: Path, ranked: list[tuple[str, float]]) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text, metadata={"file": "x"}), score=0.0) for text in TEXTS]
    postprocessor = MiniCPMRerank(model=str(reranker), dtype="float32", top_n=2)
    found = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    assert [(node.text, node.score) for node in found] == [(text, pytest.approx(score)) for text, score in ranked[:2]]
    again = await postprocessor.apostprocess_nodes(nodes, query_str=QUERY)
    assert [node.text for node in again] == [node.text for node in found]
    with pytest.raises(ValueError, match="a query is needed"):
        postprocessor.postprocess_nodes(nodes)


def test_a_checkpoint_that_does_not_rank_is_refused_at_first_use(toy: Path) -> None:
    reranker = MiniCPMReranker(model=str(toy))
    with pytest.raises(ValueError, match="MiniCPM-Reranker"):
        reranker.compress_documents([Document("x")], QUERY)


def test_embedding_checkpoints_serve_both_frameworks(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "minicpm")
    expected = EmbeddingModel(folder)
    langchain, llama_index = MiniCPMEmbeddings(model=str(folder)), MiniCPMEmbedding(model=str(folder))
    assert langchain.embed_query(QUERY) == pytest.approx(expected.embed_query(QUERY))
    assert langchain.embed_documents(TEXTS)[1] == pytest.approx(expected.embed_documents(TEXTS)[1], abs=1e-6)
    assert llama_index.get_query_embedding(QUERY) == pytest.approx(expected.embed_query(QUERY))
