"""The index on disk as LlamaIndex's own VectorStoreIndex over Chroma, and a retriever that asks it by words too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import MetadataFilters

from llamaindex_minicpm.embeddings import MiniCPMEmbedding, to_embedder
from llamaindex_minicpm.engine_fields import EngineFields
from llamaindex_minicpm.filters import to_where
from minicpm_core import index as core
from minicpm_core.index import Index
from minicpm_core.index.reranking import Reranker, resolve_reranker
from minicpm_core.rag import Passage, RagSettings

if TYPE_CHECKING:
    from minicpm_core.index import Embedder, IndexReport, PageEmbedder, Progress
    from minicpm_core.index.spread import MapFiles

try:
    from llama_index.vector_stores.chroma import ChromaVectorStore
except ImportError as error:
    raise ImportError(
        "the index needs llama-index-vector-stores-chroma: pip install 'minicpm-integrations[llamaindex,rag]'",
        name=error.name,
    ) from error

Searchable: TypeAlias = "str | Path | Index | BaseIndex[Any] | BaseRetriever"
"""The folder of an index, an opened one, what `load_index` returns, or another LlamaIndex index or retriever."""


def build_index(
    paths: str | Path | Iterable[str | Path],
    *,
    persist_directory: str | Path | None = None,
    chroma_url: str | None = None,
    chroma_token: str | None = None,
    embeddings: str | Path | Embedder | BaseEmbedding | None = None,
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
        embeddings: a name as for `MiniCPMEmbedding`, or any LlamaIndex embedding; None takes those of the index.
        settings: None takes those of the index.
        pages: how scanned pages and pictures are indexed, instead of `settings.pages`.
        page_embeddings: what embeds pages as pictures; None takes those of the index.
        page_model: what reads pages into text: also a `MiniCPMMultiModal` or `MiniCPM` that sees.
        on_progress: called after every file and every batch of passages.
        map_files: a function like `map` that spreads reading, cutting and embedding over other processes.
    """
    return core.build_index(
        paths,
        persist_directory=persist_directory,
        chroma_url=chroma_url,
        chroma_token=chroma_token,
        embeddings=to_embedder(embeddings),
        settings=settings,
        pages=pages,
        page_embeddings=page_embeddings,
        page_model=page_model.load_engine() if isinstance(page_model, EngineFields) else page_model,
        on_progress=on_progress,
        map_files=map_files,
    )


def load_index(
    persist_directory: str | Path | None = None,
    *,
    chroma_url: str | None = None,
    chroma_token: str | None = None,
    embeddings: str | Path | Embedder | BaseEmbedding | None = None,
    page_embeddings: str | Path | PageEmbedder | None = None,
) -> MiniCPMIndex:
    """Open an index that `build_index` made, with either framework or on the command line.

    Args:
        persist_directory: the folder of the index; with `chroma_url` that of this machine's copy of its records (None:
            one in the cache).
        chroma_url: the Chroma server that holds the index, and its name, as for `build_index`.
        chroma_token: sent to it as `Authorization: Bearer`; None takes $MINICPM_CHROMA_TOKEN.
        embeddings: needed only where an object made the index; it must be the same again.
        page_embeddings: the same for the pages that are stored as pictures.

    Raises:
        FileNotFoundError: there is no index in the folder or on the server.
        ValueError: other embeddings made the index, or an argument that is not accepted.
        ConnectionError: the Chroma server does not answer.
        PermissionError: it does not take the token.
    """
    server = {"chroma_url": chroma_url, "chroma_token": chroma_token}
    return MiniCPMIndex.over(Index.open(persist_directory, to_embedder(embeddings), page_embeddings, **server))


class MiniCPMIndex(VectorStoreIndex):
    """LlamaIndex's VectorStoreIndex over an index on disk; `documents` is what searches by words too."""

    documents: Index

    @classmethod
    def over(cls, documents: Index) -> MiniCPMIndex:
        """Return the index over an opened one."""
        embedding = MiniCPMEmbedding(model=documents.embeddings_name, embedder=documents.embedder)
        store = ChromaVectorStore(chroma_collection=documents.collection)
        index = cls.from_vector_store(store, embed_model=embedding)
        assert isinstance(index, cls)
        index.documents = documents
        return index

    def close(self) -> None:
        """Close the files on disk."""
        self.documents.close()

    def insert_nodes(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are added by `build_index`."""
        self._refuse()

    async def ainsert_nodes(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are added by `build_index`."""
        self._refuse()

    def delete_nodes(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are deleted by `build_index`."""
        self._refuse()

    async def adelete_nodes(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are deleted by `build_index`."""
        self._refuse()

    def delete_ref_doc(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are deleted by `build_index`."""
        self._refuse()

    async def adelete_ref_doc(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: passages are deleted by `build_index`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            "the passages of an index come from files; change the files and call "
            f"build_index(paths, persist_directory={str(self.documents.directory)!r})"
        )


class MiniCPMIndexRetriever(BaseRetriever):
    """Finds passages by meaning and by words at once.

    Args:
        index: the folder of an index, an opened one, or what `load_index` returns.
        k: passages wanted, exactly; None takes the index's settings.
        filters: condition on the passages' metadata: LlamaIndex's `MetadataFilters`, or a dict such as
            {"source": "lease.pdf"} or {"page": {"$gte": 2}}.
        reranker: orders the best candidates anew: `MiniCPMRerank`, a cross-encoder, or a loaded chat model (`MiniCPM`
            or an engine), which then says yes or no to each.
        budget: tokens that the passages may have together; while it allows, each has its neighbours joined.
        callback_manager: LlamaIndex's own.
    """

    def __init__(
        self,
        index: str | Path | Index | MiniCPMIndex,
        *,
        k: int | None = None,
        filters: MetadataFilters | dict[str, Any] | None = None,
        reranker: Any = None,
        budget: int | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        self.documents = open_documents(index)
        self.k = k
        self.where = to_where(filters)
        self.budget = budget
        self._reranker = reranker
        self._ready: Reranker | None = None
        self._lock = threading.Lock()
        super().__init__(callback_manager=callback_manager)

    def load_reranker(self) -> Reranker | None:
        """Return what reranks, loaded; None where nothing does."""
        with self._lock:
            if self._ready is None and self._reranker is not None:
                self._ready = resolve_reranker(self._reranker)
            return self._ready

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = query_bundle.custom_embedding_strs or [query_bundle.query_str]  # such as what HyDE imagines
        found = self.documents.search(
            " ".join(asked), self.k, where=self.where, reranker=self.load_reranker(), budget=self.budget
        )
        return [to_node(passage) for passage in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def open_documents(index: Any) -> Index:
    """Return the opened index behind a folder or what `load_index` returned."""
    if isinstance(index, str | Path):
        return Index.open(index)
    if isinstance(index, MiniCPMIndex):
        return index.documents
    if isinstance(index, Index):
        return index
    raise TypeError(f"index is a {type(index).__name__}; accepted: a folder, or what load_index returns")


def open_retriever(index: Searchable, settings: RagSettings | None) -> tuple[BaseRetriever, RagSettings]:
    """Return what finds the passages, and the settings: those given, or the index's own."""
    if isinstance(index, BaseRetriever) and not isinstance(index, MiniCPMIndexRetriever):
        return index, settings or RagSettings()
    if isinstance(index, BaseIndex) and not isinstance(index, MiniCPMIndex):
        rules = settings or RagSettings()
        return index.as_retriever(similarity_top_k=rules.k), rules
    documents = index.documents if isinstance(index, MiniCPMIndexRetriever) else open_documents(index)
    rules = settings or documents.settings
    return (index if isinstance(index, MiniCPMIndexRetriever) else MiniCPMIndexRetriever(documents, k=rules.k)), rules


def to_node(passage: Passage) -> NodeWithScore:
    """Return a passage as a node; its metadata tell where it stands and how near it is."""
    metadata = {**passage.metadata, "source": passage.source, "coverage": passage.coverage}
    metadata |= {} if passage.page is None else {"page": passage.page}
    metadata |= {} if passage.similarity is None else {"similarity": passage.similarity}
    hidden = [name for name in metadata if name not in ("source", "page")]
    node = TextNode(
        id_=passage.id,
        text=passage.text,
        metadata=metadata,
        excluded_llm_metadata_keys=hidden,
        excluded_embed_metadata_keys=list(metadata),
    )
    return NodeWithScore(node=node, score=passage.score)


def to_passage(found: NodeWithScore) -> Passage:
    """Return a node as a passage; nodes of other indexes name their file as LlamaIndex's readers do."""
    metadata = dict(found.node.metadata)
    page = metadata.get("page", metadata.get("page_label"))
    return Passage(
        id=found.node.node_id,
        text=found.node.get_content(metadata_mode=MetadataMode.NONE),
        source=str(metadata.get("source") or metadata.get("file_name") or found.node.ref_doc_id or found.node.node_id),
        page=int(str(page)) if str(page).isdecimal() else None,
        score=found.score or 0.0,
        similarity=metadata.get("similarity", found.score),
        coverage=metadata.get("coverage", 0.0),
        metadata=metadata,
    )
