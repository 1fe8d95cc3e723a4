"""Where an index is: in a folder, or on a Chroma server with a copy of its records in a folder."""

from __future__ import annotations

import time
from pathlib import Path

from minicpm_core.index.catalog import CATALOG_NAME, Catalog
from minicpm_core.index.chroma_server import PATIENCE, ChromaServer
from minicpm_core.index.faults import damaged
from minicpm_core.index.lock import writer_lock
from minicpm_core.index.recorded import read_settings
from minicpm_core.index.served import ServedCatalog
from minicpm_core.index.store import CHROMA_NAME
from minicpm_core.rag import RagSettings


def locate(
    persist_directory: str | Path | None, chroma_url: str | None, chroma_token: str | None
) -> tuple[Path, ChromaServer | None]:
    """Return the folder of an index and its server.

    Raises:
        ValueError: neither is given, a token without a server, or a URL that is not accepted.
        NotADirectoryError: the folder is a file.
    """
    server = None if chroma_url is None else ChromaServer.parse(chroma_url, chroma_token)
    if server is None and chroma_token is not None:
        raise ValueError("chroma_token is for the server of chroma_url; give that too")
    if persist_directory is not None:
        directory = Path(persist_directory).expanduser().resolve()
        if directory.is_file():
            raise NotADirectoryError(
                f"{directory} is a file; an index is kept in a folder, which is made if it is not there"
            )
        return directory, server
    if server is None:
        raise ValueError("give persist_directory, the folder of the index, or chroma_url, the server that holds it")
    return server.folder(), server


def open_catalog(directory: Path, server: ChromaServer | None, *, make: bool) -> Catalog:
    """Return the catalog of a local index, or the copy of a served one, up to date where nobody else writes to it."""
    if server is None:
        refuse_lost_records(directory)
        catalog = Catalog(directory)
        if (served := catalog.get("server")) is not None:
            catalog.close()
            raise ValueError(f"{directory} holds the records of the index on {served}; give that as chroma_url")
        return catalog
    directory.mkdir(parents=True, exist_ok=True)
    served_catalog = ServedCatalog(directory, server, make=make)
    try:
        if make:
            served_catalog.pull()  # the caller has the folder's lock
        else:
            _pull_unless_written(served_catalog, directory)
    except BaseException:
        served_catalog.close()
        raise
    return served_catalog


def refuse_lost_records(directory: Path) -> None:
    """Raise IndexDamagedError where there are vectors and no records: a new run would take the folder for empty."""
    file = directory / CATALOG_NAME
    if (directory / CHROMA_NAME / "chroma.sqlite3").is_file() and not (file.is_file() and file.stat().st_size):
        raise damaged(directory, f"its vectors are there, its records in {CATALOG_NAME} are not")


def refuse_lost_vectors(directory: Path, catalog: Catalog) -> None:
    """Raise IndexDamagedError where there are records and no files of Chroma, which would make new, empty ones."""
    if not (directory / CHROMA_NAME / "chroma.sqlite3").is_file() and (count := catalog.count()):
        raise damaged(directory, f"the vectors of its {count} passages are gone")


def recorded_embeddings(
    persist_directory: str | Path | None = None, chroma_url: str | None = None, chroma_token: str | None = None
) -> str | None:
    """Return the name of the embeddings that made an index; None where there is none yet.

    Args:
        persist_directory: see `build_index`.
        chroma_url: see `build_index`.
        chroma_token: see `build_index`.
    """
    return _recorded("embeddings", *locate(persist_directory, chroma_url, chroma_token))


def recorded_settings(
    persist_directory: str | Path | None = None, chroma_url: str | None = None, chroma_token: str | None = None
) -> RagSettings | None:
    """Return the settings that an index was last brought up to date with; None where there is none yet.

    Args:
        persist_directory: see `build_index`.
        chroma_url: see `build_index`.
        chroma_token: see `build_index`.
    """
    folder, server = locate(persist_directory, chroma_url, chroma_token)
    stored = _recorded("settings", folder, server)
    return None if stored is None else read_settings(folder, stored)


def _recorded(key: str, folder: Path, server: ChromaServer | None) -> str | None:
    if server is None and not (folder / CATALOG_NAME).is_file():
        return None
    try:
        catalog = open_catalog(folder, server, make=False)
    except FileNotFoundError:
        return None
    try:
        return catalog.get(key)
    finally:
        catalog.close()


def _pull_unless_written(catalog: ServedCatalog, directory: Path) -> None:
    """Bring the copy up to date; while somebody else does that, or indexes from this folder, it is so already."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with writer_lock(directory):
                catalog.pull()
                return
        except RuntimeError:
            if catalog.get("embeddings") is not None:
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
