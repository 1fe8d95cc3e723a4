"""Asks an index by meaning and by words at once."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from minicpm_core.index.catalog import CATALOG_NAME, Catalog, StoredChunk
from minicpm_core.index.chroma_server import describe_missing
from minicpm_core.index.embedders import Embedder, knows_language, measure
from minicpm_core.index.faults import explaining
from minicpm_core.index.filters import Where, normalise_where, where_sql
from minicpm_core.index.fusion import fuse
from minicpm_core.index.neighbours import join_neighbours
from minicpm_core.index.page_models import PageEmbedder
from minicpm_core.index.picture_search import PictureSearch, merge
from minicpm_core.index.picture_store import PictureStore
from minicpm_core.index.place import locate, open_catalog, refuse_lost_records, refuse_lost_vectors
from minicpm_core.index.recorded import check_dimension, check_embedder, read_settings, resolve_recorded
from minicpm_core.index.reranking import RERANKED, Reranker, rerank
from minicpm_core.index.residence import release_unless_fitting
from minicpm_core.index.store import close_chroma, open_chroma, similarities, similarities_of
from minicpm_core.index.words import Words, coverage, has_cjk, passage_words, question_words
from minicpm_core.rag import Passage, RagSettings

if TYPE_CHECKING:
    from chromadb import Collection

Ways = Literal["hybrid", "dense", "lexical"]
"""How an index is searched: by meaning and by words, or by one of them alone (cosine similarity, BM25)."""

_FEWEST_CANDIDATES = 20


class Index:
    """An index on disk, opened with `Index.open`; searches are safe from several threads, and `close` ends it."""

    def __init__(
        self,
        directory: Path,
        catalog: Catalog,
        *,
        embeddings_name: str,
        embedder: Embedder,
        settings: RagSettings,
        page_embeddings: str | Path | PageEmbedder | None = None,
    ) -> None:
        self.directory = directory
        self.embeddings_name = embeddings_name
        self.embedder = embedder
        self.settings = settings
        self._catalog = catalog
        self.client, self._collection = open_chroma(directory, catalog.server)
        store = PictureStore(directory, catalog, self.client)
        self.pictures = PictureSearch(directory, catalog, store, page_embeddings)
        self.memory_limit: int | None = None
        """Bytes that the two embedders may take together; None is no limit."""
        self._lock = threading.Lock()
        self._closed = False
        self._checked = False

    @classmethod
    @explaining
    def open(
        cls,
        persist_directory: str | Path | None = None,
        embeddings: str | Path | Embedder | None = None,
        page_embeddings: str | Path | PageEmbedder | None = None,
        *,
        chroma_url: str | None = None,
        chroma_token: str | None = None,
    ) -> Index:
        """Open the index in a folder or on a Chroma server; what is indexed later is seen when it is opened again.

        Args:
            persist_directory: the folder that `build_index` wrote; with `chroma_url` that of this machine's copy of the
                records, which the words are searched in (None: one in the cache).
            embeddings: None takes those that made the index; an object must be given again.
            page_embeddings: the same for the pages that are stored as pictures.
            chroma_url: see `build_index`.
            chroma_token: see `build_index`.

        Raises:
            FileNotFoundError: there is no index in the folder or on the server.
            ValueError: other embeddings made the index, or they were an object and none is given.
            ConnectionError: the Chroma server does not answer.
            PermissionError: it does not take the token.
            IndexDamagedError, IndexStorageError, IndexLockedError: its files cannot be read, or not written to.
        """
        directory, server = locate(persist_directory, chroma_url, chroma_token)
        if server is None and not (directory / CATALOG_NAME).is_file():
            refuse_lost_records(directory)
            raise FileNotFoundError(_no_index(directory))
        catalog = open_catalog(directory, server, make=False)
        try:
            recorded, settings = catalog.get("embeddings"), catalog.get("settings")
            if recorded is None or settings is None:
                raise FileNotFoundError(_no_index(directory) if server is None else describe_missing(server))
            name, embedder = resolve_recorded(catalog, recorded, directory, embeddings)
            if server is None:
                refuse_lost_vectors(directory, catalog)
            return cls(
                directory,
                catalog,
                embeddings_name=name,
                embedder=embedder,
                settings=read_settings(directory, settings),
                page_embeddings=page_embeddings,
            )
        except BaseException:
            catalog.close()
            raise

    def make_room(self, model: Any, limit: int | None) -> bool:
        """Release the embedders unless they fit beside `model`; see `release_unless_fitting`."""
        pictures = [self.pictures.embedder] if self.pictures.loaded else []
        return release_unless_fitting(model, [self.embedder, *pictures], limit)

    @property
    def collection(self) -> Collection:
        """The Chroma collection, for LangChain's and LlamaIndex's own vector stores."""
        return self._collection

    @explaining
    def search(
        self,
        query: str,
        k: int | None = None,
        *,
        where: Where | None = None,
        reranker: Reranker | None = None,
        budget: int | None = None,
        ways: Ways = "hybrid",
    ) -> list[Passage]:
        """Return the `k` best passages, best first: vectors and words, joined by reciprocal-rank fusion.

        Exactly `k` come back when the index holds as many different texts that `where` holds for; each text comes once.

        Args:
            query: the question.
            k: passages wanted; None takes the settings' k.
            where: a condition on the passages' metadata (source, page, heading, member, path), in Chroma's words:
                {"source": "lease.pdf"}, {"page": {"$gte": 2}}, {"$or": [..., ...]}.
            reranker: orders the best candidates anew; see `resolve_reranker`.
            budget: tokens (of the embedding model) that the passages may have together: while it allows, each is joined
                with its neighbours on the same page. None leaves the passages as they are stored.
            ways: "dense" and "lexical" are the two halves alone, to be compared; words may find fewer than `k`.

        Raises:
            TypeError: the query is no text.
            ValueError: the query is empty, k is below 1, `where` or `ways` is not accepted, or other embeddings than
                those given made the index.
        """
        wanted = self.settings.k if k is None else k
        if not hasattr(wanted, "__index__") or wanted < 1:
            raise ValueError(f"k is {wanted!r}; at least one passage must be asked for, with a whole number")
        if not isinstance(query, str):
            raise TypeError(f"query is a {type(query).__name__}; accepted: a text, the question")
        if not query.strip():
            raise ValueError("the query is empty; give a question or words to look for")
        if ways not in get_args(Ways):
            raise ValueError(f"ways is {ways!r}; accepted are {', '.join(map(repr, get_args(Ways)))}")
        condition = normalise_where(where)
        pictures: list[Passage] = []
        if ways != "lexical" and self.pictures.store.count():
            pictures = self.pictures.search(
                query, max(4 * wanted, RERANKED), condition, [self.embedder], self.memory_limit
            )
        texts = self._search_texts(query, wanted, condition, reranker, budget, ways) if self.count() else []
        return merge(texts, pictures, wanted, reranked=reranker is not None) if pictures else texts

    def _search_texts(
        self,
        query: str,
        wanted: int,
        condition: dict[str, Any] | None,
        reranker: Reranker | None,
        budget: int | None,
        ways: Ways,
    ) -> list[Passage]:
        total = self.count()
        if self.pictures.loaded:
            release_unless_fitting(self.embedder, [self.pictures.embedder], self.memory_limit)
        vector = self._embed_query(query)
        question = question_words(query)
        pool = wanted if reranker is None else max(wanted, RERANKED)
        n = max(4 * pool, _FEWEST_CANDIDATES)
        while True:
            passages = self._candidates(query, question, vector, min(n, total), condition, ways)
            if len(passages) >= pool or n >= total:
                break
            n *= 2
        if reranker is not None:
            passages = rerank(query, passages[:pool], reranker)
        found = self._with_similarity(passages[:wanted], vector)
        return found if budget is None else join_neighbours(found, self._catalog, budget, measure(self.embedder)[0])

    def _candidates(
        self, query: str, question: Words, vector: Sequence[float], n: int, where: dict[str, Any] | None, ways: Ways
    ) -> list[Passage]:
        dense = dict(similarities(self._collection, vector, n, where)) if ways != "lexical" else {}
        lexical = self._catalog.find(question, n, where_sql(where)) if ways != "dense" else []
        stored = self._catalog.chunks([*dense, *(i for i, _ in lexical if i not in dense)])
        found = {i: coverage(question, passage_words(chunk.text)) for i, chunk in stored.items()}
        weight = 1.0 if ways == "dense" or knows_language(self.embeddings_name, has_cjk(query)) else 0.0
        lexical = [pair for pair in lexical if pair[0] in stored]
        counted = found if ways == "hybrid" else dict.fromkeys(found, 0.5)
        scores = fuse([i for i in dense if i in stored], lexical, counted, dense_weight=weight)
        ranked = sorted(scores, key=lambda i: (-scores[i], -dense.get(i, 0.0), i))
        passages: dict[str, Passage] = {}
        for i in ranked:
            text = " ".join(stored[i].text.split())
            passages.setdefault(text, _passage(stored[i], scores[i], dense.get(i), found[i]))
        return list(passages.values())

    def _with_similarity(self, passages: Sequence[Passage], vector: Sequence[float]) -> list[Passage]:
        missing = [passage.id for passage in passages if passage.similarity is None]
        known = similarities_of(self._collection, vector, missing)
        return [replace(p, similarity=known[p.id]) if p.id in known else p for p in passages]

    def _embed_query(self, query: str) -> list[float]:
        if not self._checked:
            check_embedder(self._catalog, self.embeddings_name, self.embedder, self.directory)
            self._checked = True
        vector = list(self.embedder.embed_query(query))
        check_dimension(self._catalog, self.embeddings_name, len(vector), self.directory)
        return vector

    def page_text(self, passage: Passage) -> str:
        """Return the text of the page that a passage is from.

        `page_text(passage)[passage.metadata["start"] : passage.metadata["end"]]` is the passage's own text.

        Raises:
            ValueError: the page is not in the index any more, or was indexed by an older version of the package.
        """
        place = passage.metadata
        text = self._catalog.page_text(str(place.get("path")), int(place.get("part", 0)))
        if text is None:
            raise ValueError(
                f"the page of a passage of {passage.source} is not in the index in {self.directory} (any more); call "
                "build_index with its file, and search again"
            )
        return text

    def sources(self) -> list[str]:
        """Return the names of the stored files, sorted."""
        return sorted(row.source for row in self._catalog.files().values())

    def count(self) -> int:
        """Return the number of passages, pages that are stored as pictures not counted."""
        return self._catalog.count()

    def count_pages(self) -> int:
        """Return the number of pages that are stored as pictures."""
        return self.pictures.store.count()

    def close(self) -> None:
        """Close the files on disk; the embedder stays as it is (`embedder.release()` frees its memory)."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._catalog.close()
                close_chroma(self.client)

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _no_index(directory: Path) -> str:
    name = str(directory)
    return (
        f"there is no index in {name}; make one with build_index(paths, persist_directory={name!r}), "
        f"or with: minicpm index PATH... --index {shlex.quote(name)}"
    )


def _passage(chunk: StoredChunk, score: float, similarity: float | None, covered: float) -> Passage:
    metadata = dict(chunk.metadata)
    return Passage(
        id=chunk.id,
        text=chunk.text,
        source=metadata["source"],
        page=metadata.get("page"),
        score=score,
        similarity=similarity,
        coverage=covered,
        metadata=metadata,
    )
