"""One index on disk for both frameworks and the command line: Chroma for meaning, SQLite FTS5 for words."""

from minicpm_core.index.build import build_index
from minicpm_core.index.discovery import FailedFile
from minicpm_core.index.embedders import DEFAULT_EMBEDDINGS, Embedder, SentenceTransformerEmbedder, resolve_embedder
from minicpm_core.index.page_models import DEFAULT_PAGE_EMBEDDINGS, PageEmbedder
from minicpm_core.index.pages import show_page
from minicpm_core.index.place import recorded_embeddings, recorded_settings
from minicpm_core.index.progress import Progress
from minicpm_core.index.report import IndexReport
from minicpm_core.index.search import Index

__all__ = [
    "DEFAULT_EMBEDDINGS",
    "DEFAULT_PAGE_EMBEDDINGS",
    "Embedder",
    "FailedFile",
    "Index",
    "IndexReport",
    "PageEmbedder",
    "Progress",
    "SentenceTransformerEmbedder",
    "build_index",
    "recorded_embeddings",
    "recorded_settings",
    "resolve_embedder",
    "show_page",
]
