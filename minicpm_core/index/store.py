"""The Chroma of an index, embedded or a server: no telemetry, no embedding function, cosine distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.index.catalog import StoredChunk
from minicpm_core.index.chroma_server import ChromaServer, PatientCollection, disconnect

if TYPE_CHECKING:
    from chromadb import Collection
    from chromadb.api import ClientAPI

COLLECTION_NAME = "minicpm"
PICTURES_NAME = "minicpm_pages"
CHROMA_NAME = "chroma"
_LISTED = 5000
_WRITTEN = 256  # at once: Chroma takes some thousands, and a server 40 MB


def open_chroma(directory: Path, server: ChromaServer | None = None) -> tuple[ClientAPI, Collection]:
    """Return the Chroma client of an index folder, or of a server, and its collection, made if it is not there."""
    try:
        import chromadb
        from chromadb.config import Settings
    except ImportError as error:
        raise ImportError(
            'the index needs chromadb: pip install "minicpm-integrations[rag]"', name=error.name
        ) from error

    if server is not None:
        client = server.connect()
        patient: Any = PatientCollection(server, _collection(client, server.name))
        return client, patient
    path = str(directory / CHROMA_NAME)
    try:
        client = chromadb.PersistentClient(path=path, settings=Settings(anonymized_telemetry=False, is_persistent=True))
    except BaseException:
        _forget_unstarted(path)
        raise
    try:
        return client, _collection(client)
    except BaseException:
        close_chroma(client)
        raise


def _forget_unstarted(path: str) -> None:
    """Let Chroma open these files anew: it keeps, for this process, what could not be started (chromadb 1.5)."""
    from chromadb.api.shared_system_client import SharedSystemClient as Shared

    if path not in getattr(Shared, "_identifier_to_refcount", {}):
        getattr(Shared, "_identifier_to_system", {}).pop(path, None)


def open_pictures(client: ClientAPI, server: ChromaServer | None = None) -> Collection:
    """Return the collection of the pages that are stored as pictures, made if it is not there."""
    if server is None:
        return _collection(client, PICTURES_NAME)
    made = server.patiently(_collection, client, _pictures_name(server))
    return PatientCollection(server, made)  # type: ignore[return-value]


def find_pictures(client: ClientAPI, server: ChromaServer | None = None) -> Collection | None:
    """Return the collection of pictures; None where there is none."""
    if not _patiently(server, _exists, client, _pictures_name(server)):
        return None
    return open_pictures(client, server)


def drop_pictures(client: ClientAPI, server: ChromaServer | None = None) -> None:
    """Delete the collection of pictures, if there is one."""
    from chromadb.errors import NotFoundError

    def drop() -> None:
        with suppress(NotFoundError):  # the answer to a first attempt may have been lost
            client.delete_collection(_pictures_name(server))

    if _patiently(server, _exists, client, _pictures_name(server)):
        _patiently(server, drop)


def _pictures_name(server: ChromaServer | None) -> str:
    return PICTURES_NAME if server is None else f"{server.name}_pages"


def _patiently(server: ChromaServer | None, call: Callable[..., Any], *args: Any) -> Any:
    return call(*args) if server is None else server.patiently(call, *args)


def _exists(client: ClientAPI, name: str) -> bool:
    return any(collection.name == name for collection in client.list_collections())


def close_chroma(client: ClientAPI) -> None:
    """Close the client's files, unless another client in this process has them open, or its connections."""
    if hasattr(getattr(client, "_server", None), "_session"):
        return disconnect(client)
    closing: Any = client  # the class that Chroma's functions are typed with lacks it
    closing.close()


def empty_collection(client: ClientAPI, server: ChromaServer | None = None) -> Collection:
    """Delete the collection and return a new one, which takes vectors of any dimension."""
    name = COLLECTION_NAME if server is None else server.name
    client.delete_collection(name)
    made: Any = _collection(client, name)
    return made if server is None else PatientCollection(server, made)  # type: ignore[return-value]


def _collection(client: ClientAPI, name: str = COLLECTION_NAME) -> Collection:
    return client.get_or_create_collection(name, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)


def store_chunks(collection: Collection, chunks: Sequence[StoredChunk], vectors: Sequence[Sequence[float]]) -> None:
    """Write passages or pages and their vectors."""
    for start in range(0, len(chunks), _WRITTEN):
        some = chunks[start : start + _WRITTEN]
        collection.upsert(
            ids=[chunk.id for chunk in some],
            embeddings=_matrix(vectors[start : start + _WRITTEN]),
            documents=[chunk.text for chunk in some],
            metadatas=[dict(chunk.metadata) for chunk in some],
        )


def stored_ids(collection: Collection) -> set[str]:
    """Return the ids of all passages."""
    ids: set[str] = set()
    while True:
        some = collection.get(limit=_LISTED, offset=len(ids), include=[])["ids"]
        ids.update(some)
        if len(some) < _LISTED:
            return ids


def delete_ids(collection: Collection, ids: Sequence[str]) -> None:
    """Delete passages."""
    for start in range(0, len(ids), _LISTED):
        collection.delete(ids=list(ids[start : start + _LISTED]))


def _matrix(vectors: Sequence[Sequence[float]]) -> Any:
    import numpy as np

    return np.asarray(vectors, dtype=np.float32)


def similarities(
    collection: Collection, vector: Sequence[float], n: int, where: dict[str, Any] | None = None
) -> list[tuple[str, float]]:
    """Return the `n` nearest passages that `where` holds for: (id, cosine similarity), nearest first."""
    found = collection.query(query_embeddings=_matrix([vector]), n_results=n, where=where, include=["distances"])
    distances: Any = found["distances"]
    return [(i, 1.0 - float(d)) for i, d in zip(found["ids"][0], distances[0], strict=True)]


def similarities_of(collection: Collection, vector: Sequence[float], ids: Sequence[str]) -> dict[str, float]:
    """Return the cosine similarities of the passages with the given ids."""
    import numpy as np

    if not ids:
        return {}
    found = collection.get(ids=list(ids), include=["embeddings"])
    if not found["ids"]:
        return {}
    rows = np.asarray(found["embeddings"], dtype=np.float64).reshape(len(found["ids"]), -1)
    query = np.asarray(vector, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
    return {i: float(s) for i, s in zip(found["ids"], rows @ query / np.maximum(norms, 1e-12), strict=True)}
