"""MiniCPM for LangChain: chat and completion models, embeddings, and RAG over Chroma. Importing it is cheap."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_minicpm.chat_models import ChatMiniCPM, ChatMiniCPMV
    from langchain_minicpm.embeddings import MiniCPMEmbeddings
    from langchain_minicpm.llms import MiniCPMLLM
    from langchain_minicpm.rag import create_rag_chain
    from langchain_minicpm.rerankers import MiniCPMReranker
    from langchain_minicpm.retrievers import MiniCPMRetriever, create_retriever_tool
    from langchain_minicpm.vectorstores import build_index, load_index
    from minicpm_core.index import IndexReport

__all__ = [
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

try:
    __version__ = version("minicpm-integrations")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

_HOMES = {
    "ChatMiniCPM": "langchain_minicpm.chat_models",
    "ChatMiniCPMV": "langchain_minicpm.chat_models",
    "IndexReport": "minicpm_core.index",
    "MiniCPMEmbeddings": "langchain_minicpm.embeddings",
    "MiniCPMLLM": "langchain_minicpm.llms",
    "MiniCPMReranker": "langchain_minicpm.rerankers",
    "MiniCPMRetriever": "langchain_minicpm.retrievers",
    "build_index": "langchain_minicpm.vectorstores",
    "create_rag_chain": "langchain_minicpm.rag",
    "create_retriever_tool": "langchain_minicpm.retrievers",
    "load_index": "langchain_minicpm.vectorstores",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "langchain_core":
            raise
        raise ImportError(
            f'{name} needs LangChain: pip install "minicpm-integrations[langchain,rag]"', name=error.name
        ) from error
