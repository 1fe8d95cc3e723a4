"""MiniCPM for LlamaIndex: local language models, embeddings and RAG. Importing it imports neither torch nor Chroma."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_minicpm.embeddings import MiniCPMEmbedding
    from llamaindex_minicpm.index import MiniCPMIndexRetriever, build_index, load_index
    from llamaindex_minicpm.llms import MiniCPM, MiniCPMLLM
    from llamaindex_minicpm.multi_modal import MiniCPMMultiModal
    from llamaindex_minicpm.rag import create_chat_engine, create_query_engine
    from llamaindex_minicpm.react import react_grammar
    from llamaindex_minicpm.rerankers import MiniCPMRerank
    from llamaindex_minicpm.retriever_tool import create_retriever_tool
    from llamaindex_minicpm.settings import use_minicpm
    from minicpm_core.index import IndexReport

__all__ = [
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
]

_HOMES = {
    "IndexReport": "minicpm_core.index",
    "MiniCPM": "llamaindex_minicpm.llms",
    "MiniCPMEmbedding": "llamaindex_minicpm.embeddings",
    "MiniCPMIndexRetriever": "llamaindex_minicpm.index",
    "MiniCPMLLM": "llamaindex_minicpm.llms",
    "MiniCPMMultiModal": "llamaindex_minicpm.multi_modal",
    "MiniCPMRerank": "llamaindex_minicpm.rerankers",
    "build_index": "llamaindex_minicpm.index",
    "create_chat_engine": "llamaindex_minicpm.rag",
    "create_query_engine": "llamaindex_minicpm.rag",
    "create_retriever_tool": "llamaindex_minicpm.retriever_tool",
    "load_index": "llamaindex_minicpm.index",
    "react_grammar": "llamaindex_minicpm.react",
    "use_minicpm": "llamaindex_minicpm.settings",
}

try:
    __version__ = version("minicpm-integrations")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.0.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "llama_index":
            raise
        raise ImportError(
            f"{name} needs LlamaIndex: pip install 'minicpm-integrations[llamaindex,rag]'", name=error.name
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
