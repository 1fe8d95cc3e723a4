"""The index on disk as LangChain's own Chroma."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NoReturn

from langchain_core.documents import Document

from langchain_minicpm.embeddings import IndexEmbeddings, MiniCPMEmbeddings
from langchain_minicpm.settings import MiniCPMSettings
from minicpm_core import index as core
from minicpm_core.index import Embedder, Index, IndexReport, PageEmbedder, Progress
from minicpm_core.index.spread import MapFiles
from minicpm_core.rag import RagSettings

try:
    from langchain_chroma import Chroma
except ImportError as error:
    raise ImportError(
        'the index needs langchain-chroma: pip install "minicpm-integrations[langchain,rag]"', name=error.name
    ) from error


class MiniCPMChroma(Chroma):
    """LangChain's Chroma over an index that `build_index` made; `index` is what searches by words too."""

    def __init__(self, index: Index) -> None:
        self.index = index
        super().__init__(
            collection_name=index.collection.name,
            embedding_function=IndexEmbeddings(index.embedder),
            client=index.client,
            relevance_score_fn=lambda distance: 1.0 - distance,  # the collection's distance is the cosine's
        )

    def add_texts(self, texts: Iterable[str], *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are added by `build_index`."""
        self._refuse()

    def add_images(self, uris: list[str], *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are added by `build_index`."""
        self._refuse()

    def update_documents(self, ids: list[str], documents: list[Document]) -> NoReturn:
        """Refuse: passages are changed by `build_index`."""
        self._refuse()

    def delete(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are deleted by `build_index`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            "the passages of an index come from files; change the files and call "
            f"build_index(paths, persist_directory={str(self.index.directory)!r})"
        )


def build_index(
    paths: str | Path | Iterable[str | Path],
    *,
    persist_directory: str | Path | None = None,
    chroma_url: str | None = None,
    chroma_token: str | None = None,
    embeddings: str | Path | Embedder | None = None,
    settings: RagSettings | None = None,
    pages: Literal["text", "image", "auto"] | None = None,
    page_embeddings: str | Path | PageEmbedder | None = None,
    page_model: Any = None,
    on_progress: Callable[[Progress], None] | None = None,
    map_files: MapFiles | None = None,
) -> IndexReport:
    """Index files and folders, or bring an index up to date; see `minicpm_core.index.build_index`.

    Args:
        paths: a file or folder, or several.
        persist_directory: the folder of the index; with `chroma_url` that of this machine's copy of its records.
        chroma_url: a Chroma server that holds the index, and its name: "http://localhost:8000/contracts".
        chroma_token: sent to it as `Authorization: Bearer`; None takes $MINICPM_CHROMA_TOKEN.
        embeddings: any LangChain embeddings, or a name as for `MiniCPMEmbeddings`; None takes those of the index.
        settings: None takes those of the index.
        pages: how scanned pages and pictures are indexed, instead of `settings.pages`.
        page_embeddings: what embeds pages as pictures; None takes those of the index.
        page_model: what reads pages into text: also a `ChatMiniCPMV`.
        on_progress: called after every file and every batch of passages.
        map_files: a function like `map` that spreads reading, cutting and embedding over other processes.
    """
    return core.build_index(
        paths,
        persist_directory=persist_directory,
        chroma_url=chroma_url,
        chroma_token=chroma_token,
        embeddings=_named(embeddings),
        settings=settings,
        pages=pages,
        page_embeddings=page_embeddings,
        page_model=page_model.load_engine() if isinstance(page_model, MiniCPMSettings) else page_model,
        on_progress=on_progress,
        map_files=map_files,
    )


def load_index(
    persist_directory: str | Path | None = None,
    *,
    chroma_url: str | None = None,
    chroma_token: str | None = None,
    embeddings: str | Path | Embedder | None = None,
    page_embeddings: str | Path | PageEmbedder | None = None,
) -> MiniCPMChroma:
    """Open the index that `build_index` made, as a LangChain Chroma vector store.

    Args:
        persist_directory: the index folder; with `chroma_url` that of this machine's copy of its records (None: one in
            the cache).
        chroma_url: the Chroma server that holds the index, and its name, as for `build_index`.
        chroma_token: sent to it as `Authorization: Bearer`; None takes $MINICPM_CHROMA_TOKEN.
        embeddings: None takes those that made the index; an object must be given again.
        page_embeddings: the same for the pages that are stored as pictures.

    Raises:
        FileNotFoundError: there is no index in the folder or on the server.
        ValueError: other embeddings made the index, or an argument that is not accepted.
        ConnectionError: the Chroma server does not answer.
        PermissionError: it does not take the token.
    """
    server = {"chroma_url": chroma_url, "chroma_token": chroma_token}
    return MiniCPMChroma(Index.open(persist_directory, _named(embeddings), page_embeddings, **server))


def _named(embeddings: str | Path | Embedder | None) -> str | Path | Embedder | None:
    """Return the name that MiniCPMEmbeddings stand for, so that the index can be opened without the object."""
    return embeddings.model if isinstance(embeddings, MiniCPMEmbeddings) else embeddings
