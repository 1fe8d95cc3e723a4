"""The package as a whole: what it exports, what importing it costs, and `use_minicpm`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import llama_index.core
import pytest
from llama_index.core import Settings
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.node_parser import SentenceSplitter

import llamaindex_minicpm
from llamaindex_minicpm import MiniCPM, MiniCPMEmbedding, use_minicpm

BLOCKED = """
import sys
for name in ("langchain", "langchain_core"):
    sys.modules[name] = None
import llamaindex_minicpm
assert not {"torch", "chromadb", "llama_index"} & set(sys.modules), "importing the package is not light"
llamaindex_minicpm.MiniCPM(), llamaindex_minicpm.MiniCPMEmbedding()
assert not {"torch", "chromadb", "transformers", "sentence_transformers"} & set(sys.modules), "constructing loads"
for name in llamaindex_minicpm.__all__:
    getattr(llamaindex_minicpm, name)
"""
MISSING = """
import sys
sys.modules["llama_index"] = sys.modules["llama_index.core"] = None
import llamaindex_minicpm
try:
    llamaindex_minicpm.MiniCPM
except ImportError as error:
    assert "pip install 'minicpm-integrations[llamaindex" in str(error), error
else:
    raise AssertionError("no ImportError")
"""


@pytest.mark.parametrize("code", [BLOCKED, MISSING])
def test_imports_are_light_and_a_missing_framework_is_named(code: str) -> None:
    passed = "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning"  # chromadb calls it, on 3.14
    command = [sys.executable, "-W", "error", "-W", passed, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names() -> None:
    assert set(llamaindex_minicpm.__all__) == {
        "IndexReport",
        "MiniCPM",
        "MiniCPMEmbedding",
        "MiniCPMIndexRetriever",
        "MiniCPMLLM",
        "MiniCPMMultiModal",
        "MiniCPMRerank",
        "build_index",
        "create_chat_engine",
        "create_query_engine",
        "create_retriever_tool",
        "load_index",
        "react_grammar",
        "use_minicpm",
    }
    assert all(hasattr(llamaindex_minicpm, name) for name in llamaindex_minicpm.__all__)
    assert llamaindex_minicpm.__version__
    with pytest.raises(AttributeError, match="no attribute 'MiniCPMRerankX'"):
        _ = llamaindex_minicpm.MiniCPMRerankX
    assert (Path(llamaindex_minicpm.__file__).parent / "py.typed").is_file()


def test_instances_fit_into_fields_of_other_models() -> None:
    class Pipeline(BaseModel):
        llm: MiniCPM
        embedding: MiniCPMEmbedding

    llm, embedding = MiniCPM(model="demo", seed=3), MiniCPMEmbedding(model="demo")
    pipeline = Pipeline(llm=llm, embedding=embedding)
    assert (pipeline.llm, pipeline.embedding) == (llm, embedding)
    assert Pipeline(llm={"model": "demo", "seed": 3}, embedding={"model": "demo"}).llm.seed == 3


def test_use_minicpm_sets_everything_without_a_key(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    llm = use_minicpm(toy, temperature=0, max_tokens=8)
    assert Settings.llm is llm
    assert isinstance(llm, MiniCPM)
    assert (llm.model, llm.max_tokens) == (str(toy), 8)
    assert isinstance(Settings.embed_model, MiniCPMEmbedding)
    assert Settings.embed_model.model_name == "intfloat/multilingual-e5-small"
    assert Settings.llm.complete("hello").raw["usage"]["completion_tokens"] == 8


def test_use_minicpm_counts_with_the_models_tokenizer(toy: Path) -> None:
    llm = use_minicpm(toy)
    assert Settings.tokenizer("hello 你好") == llm.tokenize("hello 你好")
    assert llama_index.core.global_tokenizer is not None
    text = "The quick brown fox. " * 40
    chunks = SentenceSplitter(chunk_size=64, chunk_overlap=0).split_text(text)
    assert len(chunks) > 1
    assert max(len(llm.tokenize(chunk)) for chunk in chunks) <= 64


def test_use_minicpm_takes_embeddings_and_a_chunk_size(toy: Path) -> None:
    mine = MockEmbedding(embed_dim=3)
    before = Settings.chunk_size
    use_minicpm(toy, embeddings=mine)
    assert Settings.embed_model is mine
    assert Settings.chunk_size == before
    use_minicpm(toy, embeddings="demo", chunk_size=77)
    assert Settings.embed_model.model_name == "demo"
    assert Settings.chunk_size == 77


def test_use_minicpm_refuses_unknown_options(toy: Path) -> None:
    with pytest.raises(ValueError, match="unknown arguments: embedings"):
        use_minicpm(toy, embedings="demo")
