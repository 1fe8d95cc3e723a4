"""The package imports cheaply, says what it offers, and stands without the other framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

import langchain_minicpm

HEAVY = ("torch", "transformers", "chromadb", "sentence_transformers", "llama_index")


def test_the_public_names() -> None:
    assert langchain_minicpm.__all__ == [
        "ChatMiniCPM",
        "ChatMiniCPMV",
        "IndexReport",
        "MiniCPMEmbeddings",
        "MiniCPMLLM",
        "MiniCPMReranker",
        "MiniCPMRetriever",
        "build_index",
        "create_rag_chain",
        "create_retriever_tool",
        "load_index",
    ]
    assert all(callable(getattr(langchain_minicpm, name)) for name in langchain_minicpm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'ChatMinicpm'"):
        _ = langchain_minicpm.ChatMinicpm


@pytest.mark.parametrize(
    "statement",
    [
        "import langchain_minicpm",
        "from langchain_minicpm import ChatMiniCPM, MiniCPMLLM; ChatMiniCPM(model='a/b'); MiniCPMLLM(model='a/b')",
        "from langchain_minicpm import MiniCPMEmbeddings, MiniCPMRetriever, create_rag_chain; MiniCPMEmbeddings()",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(statement: str) -> None:
    code = f"import sys; {statement}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_either_framework_works_without_the_other() -> None:
    block = "import sys; sys.modules['llama_index'] = sys.modules['llama_index.core'] = None; "
    names = ", ".join(langchain_minicpm.__all__)
    subprocess.run([sys.executable, "-c", f"{block}from langchain_minicpm import {names}"], check=True)
