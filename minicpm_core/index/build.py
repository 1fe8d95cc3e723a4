"""Brings an index up to date with folders and files."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from minicpm_core.index.catalog import CATALOG_NAME, Catalog
from minicpm_core.index.discovery import find_files
from minicpm_core.index.embedders import Embedder
from minicpm_core.index.faults import explaining
from minicpm_core.index.lock import LOCK_NAME, writer_lock
from minicpm_core.index.page_models import PageEmbedder
from minicpm_core.index.place import locate, open_catalog
from minicpm_core.index.progress import Progress
from minicpm_core.index.report import IndexReport
from minicpm_core.index.run import IndexRun
from minicpm_core.index.spread import MapFiles
from minicpm_core.index.store import CHROMA_NAME
from minicpm_core.rag import RagSettings


@explaining
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
    """Index files and folders, or bring an index up to date: what has not changed is not read into it again.

    A file that is gone from a folder given now or earlier is removed, as long as that folder itself is still there; so
    is one that is given by its name and gone. All other files stay. A file that cannot be read is reported and does not
    stop the others. Files are split anew when their content or the settings' chunk_size or chunk_overlap have changed;
    passages are never longer than the embedding model reads.

    Pages are looked at before anything is stored: what looks at them is released before the embeddings load. A page
    that cannot be rendered is reported, the others are stored, and the next run tries it again.

    A run that is ended, even by kill -9, loses no file that was finished; the next one goes on with the one in work.

    Args:
        paths: a file or folder, or several; folders are read with everything below them except hidden files.
        persist_directory: the folder of the index; with `chroma_url` that of this machine's copy of its records.
        chroma_url: a Chroma server that holds the index, with the name of the index: "http://localhost:8000/contracts".
        chroma_token: sent to it as `Authorization: Bearer`; None takes $MINICPM_CHROMA_TOKEN, if it is set.
        embeddings: a sentence-transformers name, "demo", or an object with embed_documents and embed_query. None takes
            those of the index, for a new one DEFAULT_EMBEDDINGS.
        settings: None takes those of the index, for a new one the defaults (`RagSettings.demo()` with "demo").
        pages: how scanned pages and pictures are indexed, instead of `settings.pages`; see there.
        page_embeddings: for "image" and "auto": a folder or hub id of VisRAG-Ret or of a CLIP model for
            sentence-transformers, "demo", or an object with embed_images and embed_query. None takes those of the
            index, for a new one DEFAULT_PAGE_EMBEDDINGS ("demo" with the demo embeddings).
        page_model: for "text": what reads pages without a text layer: a vision model's folder or hub id, an engine, or
            a function from a picture to its text. None takes that of the index, if there is one.
        on_progress: called after every file and every batch of passages, and before every page that is looked at. What
            it raises ends the run.
        map_files: spreads the reading, cutting and embedding of files over other processes, here or on other machines
            that see the same paths: a function like the built-in `map`, such as an `Executor`'s. This process stores.

    Raises:
        ValueError: nothing could be indexed and the index is empty, or other embeddings made the index.
        RuntimeError: another run is writing to the index.
        ConnectionError: the Chroma server does not answer, for a minute where it did before.
        PermissionError: it does not take the token.
        IndexStorageError: the disk is full or read-only, or the folder of the index is gone.
        IndexDamagedError: files of the index are damaged.
        IndexLockedError: another program holds a lock on its files.
    """
    started = time.perf_counter()
    directory, server = locate(persist_directory, chroma_url, chroma_token)
    found = find_files(paths, ignore=directory)
    directory.mkdir(parents=True, exist_ok=True)
    with writer_lock(directory):
        catalog = open_catalog(directory, server, make=True)
        try:
            looks = (pages, page_embeddings, page_model)
            with catalog.writing():
                build = IndexRun(directory, catalog, embeddings, settings, on_progress, map_files)
                return build.run(found, started, *looks)
        finally:
            made, seen = _holds(catalog, "files"), _holds(catalog, "looks")
            catalog.close()
            if not made:  # what is left of a first run that failed is no index
                shutil.rmtree(directory / CHROMA_NAME, ignore_errors=True)
                for name in () if seen else (CATALOG_NAME, LOCK_NAME):  # what a model saw is not to be seen again
                    (directory / name).unlink(missing_ok=True)


def _holds(catalog: Catalog, what: Literal["files", "looks"]) -> bool:
    try:
        return catalog.get("embeddings") is not None if what == "files" else catalog.has_looks()
    except sqlite3.Error:  # it was one, before it was damaged
        return True
