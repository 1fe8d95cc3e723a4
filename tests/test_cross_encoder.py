"""A real cross-encoder of sentence-transformers, written to a folder by the test, reranks by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_minicpm import MiniCPMRetriever
from llamaindex_minicpm import MiniCPMIndexRetriever
from minicpm_core.index import Index, build_index
from minicpm_core.index.reranking import CrossEncoderReranker, resolve_reranker
from tests.killed_build import WordEmbedder

pytest.importorskip("sentence_transformers", reason="the rag extra is not installed")
TEXTS = ("The rent is 900 euros a month.", "Dogs are forbidden in the flat.", "The roof is repaired by the landlord.")
QUESTION = "Who repairs the roof?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("cross-encoder")
    words = sorted({word for text in (*TEXTS, QUESTION) for word in text.lower().strip(".?").split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(vocab={word: n for n, word in enumerate(vocabulary)}, do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        num_labels=1,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[str]:
    from sentence_transformers import CrossEncoder

    scores = CrossEncoder(str(folder), device="cpu").predict([(QUESTION, text) for text in TEXTS])
    assert len({round(float(score), 5) for score in scores}) == 3
    return [text for _, text in sorted(zip(scores, TEXTS, strict=True), reverse=True)]


def test_a_cross_encoder_by_name_ranks_in_core_and_both_frameworks(
    folder: Path, expected: list[str], tmp_path: Path
) -> None:
    for n, text in enumerate(TEXTS):
        (tmp_path / f"{n}.txt").write_text(text, encoding="utf-8")
    build_index(sorted(tmp_path.glob("*.txt")), persist_directory=tmp_path / "index", embeddings=WordEmbedder())
    with Index.open(tmp_path / "index", WordEmbedder()) as index:
        reranker = resolve_reranker(str(folder))
        assert isinstance(reranker, CrossEncoderReranker)
        assert [passage.text for passage in index.search(QUESTION, 3, reranker=reranker)] == expected
        documents = MiniCPMRetriever(index=index, k=2, reranker=str(folder)).invoke(QUESTION)
        assert [document.page_content for document in documents] == expected[:2]
        nodes = MiniCPMIndexRetriever(index, k=2, reranker=str(folder)).retrieve(QUESTION)
        assert [node.node.get_content() for node in nodes] == expected[:2]
        assert [node.score for node in nodes] == [document.metadata["score"] for document in documents]
