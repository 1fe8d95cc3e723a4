"""Questions over scanned pages in LlamaIndex, over an index that LangChain made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ImageBlock, TextBlock

from llamaindex_minicpm import MiniCPM, create_chat_engine, create_query_engine, load_index
from minicpm_core.index import build_index
from tests.scanned import CLEANING, WARRANTY, write_scan
from tests.test_index_build import HashEmbedder
from tests.toy_minicpmv import write_minicpmv

QUESTION = "How long is the warranty?"


@pytest.fixture
def scanned(tmp_path: Path) -> Any:
    write_scan(tmp_path / "manual.pdf", WARRANTY, CLEANING)
    options: dict[str, Any] = {"embeddings": HashEmbedder(), "page_embeddings": "demo"}
    build_index(tmp_path / "manual.pdf", persist_directory=tmp_path / "index", pages="auto", **options)
    index = load_index(tmp_path / "index", **options)
    yield index
    index.close()


def test_the_model_sees_the_page(scanned: Any, tmp_path: Path) -> None:
    folder = write_minicpmv(tmp_path / "vision", "2.6")
    llm = MiniCPM(model=str(folder), dtype="float32", quantization="none", temperature=0.0, max_tokens=8)
    engine = create_query_engine(scanned, llm)
    prompt = engine.steps.find(QUESTION)
    blocks = prompt.messages[1].blocks
    assert [type(block) for block in blocks] == [TextBlock, ImageBlock, TextBlock, ImageBlock, TextBlock]
    assert [block.text for block in blocks if isinstance(block, TextBlock)] == ["[1]", "[2]", f"Question: {QUESTION}"]
    assert "1|2" in prompt.options["grammar"]
    response = engine.query(QUESTION)
    assert [(node.metadata["source"], node.metadata["page"]) for node in response.source_nodes] == [
        ("manual.pdf", 1), ("manual.pdf", 2),
    ]  # fmt: skip
    assert Path(response.source_nodes[0].metadata["thumbnail"]).is_file()
    assert engine.steps.check("Two years [1].", prompt)["citations"] == [
        {"n": 1, "source": "manual.pdf", "page": 1, "quote": ""}
    ]
    assert create_chat_engine(scanned, llm).chat(QUESTION).response == str(response)
    llm.load_engine().close()


def test_a_model_that_cannot_see_says_so(scanned: Any) -> None:
    with pytest.raises(ValueError, match=r"manual.pdf, page 1, is a picture in the index, and demo reads text only"):
        create_query_engine(scanned, MiniCPM(model="demo")).query(QUESTION)
