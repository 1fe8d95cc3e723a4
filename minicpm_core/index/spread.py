"""Spreads the reading, cutting and embedding of files over other processes; one process stores."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicpm_core.index.catalog import FileRow
from minicpm_core.index.cutting import cut_pages, splitting_name
from minicpm_core.index.embedders import EMBED_BATCH, Embedder, resolve_embedder
from minicpm_core.index.outline import Page
from minicpm_core.index.page_files import PageFile
from minicpm_core.index.readers import read_bytes, read_parts
from minicpm_core.index.recorded import describe_embedder
from minicpm_core.rag import RagSettings

WINDOW = 64
"""Files that are handed out at a time; the next ones are handed out while these are stored."""
_SAME_VECTOR = 0.95  # cosine, as between an index and the embeddings that open it


@dataclass(frozen=True)
class FileTask:
    """A file to embed.

    Args:
        path: the same on every machine.
        known: hash of the contents that are in the index; where the file has it still, nothing is to be done.
        settings: how it is cut.
        embeddings: a name, or an object that can be pickled.
    """

    path: str
    known: str | None
    settings: RagSettings
    embeddings: str | Embedder


@dataclass(frozen=True)
class EmbeddedFile:
    """What became of it: passages with their vectors, and the vector of a fixed text, which tells the model."""

    texts: list[str]
    vectors: list[list[float]]
    probe: str = ""


MapFiles = Callable[[Callable[[FileTask], EmbeddedFile], list[FileTask]], Iterable[EmbeddedFile]]
"""A function like the built-in `map`: `Executor.map`, a Dask client's executor's, a Ray pool's."""


def embed_file(task: FileTask) -> EmbeddedFile:
    """Read, cut and embed a file, in any process; one that cannot be read is left to the process that stores."""
    try:
        data = read_bytes(Path(task.path))
        digest = hashlib.sha256(data).hexdigest()
        if digest == task.known:
            return EmbeddedFile([], [])
        _, embedder = resolve_embedder(task.embeddings)
        row = FileRow(task.path, task.path, digest, splitting_name(task.settings), 0, 0, 0.0)
        pages = _pages(data, Path(task.path).suffix)
        texts = [chunk.text for _, chunks in cut_pages(pages, row, task.settings, embedder) for chunk in chunks]
    except (ValueError, OSError, ImportError):
        return EmbeddedFile([], [])
    vectors: list[list[float]] = []
    for start in range(0, len(texts), EMBED_BATCH):
        vectors += [list(vector) for vector in embedder.embed_documents(texts[start : start + EMBED_BATCH])]
    return EmbeddedFile(texts, vectors, _probe(task.embeddings))


def _pages(data: bytes, suffix: str) -> Iterable[Page]:
    if suffix.lower() == ".pdf":
        pages: Iterable[Page] = PageFile(data, suffix).find("text")[0]
        return pages
    return read_parts(data, suffix).pages


def _probe(embeddings: str | Embedder) -> str:
    if isinstance(embeddings, str):
        return _probe_of(embeddings)
    return describe_embedder(embeddings, by_name=False)["embeddings_probe"]


@functools.cache
def _probe_of(name: str) -> str:
    return describe_embedder(resolve_embedder(name)[1], by_name=True)["embeddings_probe"]


class SpreadEmbedder:
    """An embedder that has passages embedded by other processes, some files ahead, and embeds what they left itself.

    Args:
        embedder: of this process; the others' vectors of a fixed text are compared with its own.
        tasks: all files, in the order in which they are stored.
        map_files: hands them out.
    """

    def __init__(self, embedder: Embedder, tasks: Sequence[FileTask], map_files: MapFiles) -> None:
        self._embedder, self._map = embedder, map_files
        self._windows = [list(tasks[start : start + WINDOW]) for start in range(0, len(tasks), WINDOW)]
        self._places = {task.path: n for n, window in enumerate(self._windows) for task in window}
        self._running: dict[int, Iterator[EmbeddedFile]] = {}
        self._at: int | None = None
        self._known: dict[str, list[float]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def reach(self, path: str) -> None:
        """Wait for the passages of a file, and have the next ones embedded meanwhile.

        Raises:
            ValueError: another process has another model under the same name.
        """
        window = self._places.get(path)
        if window is None or window == self._at:
            return
        self._at = window
        for n in (window, window + 1):
            if n < len(self._windows) and n not in self._running:
                self._running[n] = iter(self._map(embed_file, self._windows[n]))
        found = list(self._running.pop(window))
        for probe in {file.probe for file in found} - {""}:
            self._compare(json.loads(probe))
        pairs = (pair for file in found for pair in zip(file.texts, file.vectors, strict=True))
        self._known = dict(pairs)

    def _compare(self, probe: list[float]) -> None:
        import numpy as np

        own = json.loads(describe_embedder(self._embedder, by_name=True)["embeddings_probe"])
        same = len(own) == len(probe)
        if not same or np.dot(own, probe) < _SAME_VECTOR * np.linalg.norm(own) * np.linalg.norm(probe):
            raise ValueError(
                "the embeddings of another process give other vectors than those of this one, under the same name; "
                "install the same model on every machine"
            )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of passages, [len(texts)][dimension]."""
        left = [text for text in texts if text not in self._known]
        own = dict(zip(left, self._embedder.embed_documents(left), strict=True)) if left else {}
        return [self._known[text] if text in self._known else own[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, [dimension]."""
        return self._embedder.embed_query(text)
