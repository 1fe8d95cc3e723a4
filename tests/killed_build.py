"""A child process that indexes a folder and kills itself (kill -9) at a given moment; see test_index_crash.

python -m tests.killed_build DOCS INDEX [NAME COUNT before|after]: at the COUNTth call of a step of MOMENTS.
"""

from __future__ import annotations

import os
import signal
import sys
import zlib
from collections.abc import Callable
from typing import Any

from minicpm_core.index import build_index, writing
from minicpm_core.index.catalog import Catalog
from minicpm_core.index.words import passage_words
from minicpm_core.rag import RagSettings

MOMENTS: dict[str, Any] = {
    "begin_file": Catalog,
    "add_page": Catalog,
    "add_chunks": Catalog,
    "end_file": Catalog,
    "store_chunks": writing,
    "_drop": writing.Writer,
}
SETTINGS = RagSettings(chunk_size=12, chunk_overlap=0)


class WordEmbedder:
    """Words hashed into 32 numbers; keeps what it embeds."""

    name = "words"

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += texts
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.01] * 32
        for word in set(passage_words(text).words):
            vector[zlib.crc32(word.encode()) % 32] += 1.0
        return vector


def kill_at(name: str, count: int, when: str) -> None:
    """Let this process end at the `count`th call of a step, before or after it."""
    owner = MOMENTS[name]
    step: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = step(*args, **options)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    docs, store, *moment = sys.argv[1:]
    if moment:
        kill_at(moment[0], int(moment[1]), moment[2])
    build_index(
        docs,
        persist_directory=store,
        chroma_url=os.environ.get("MINICPM_TEST_CHROMA_URL"),
        embeddings=WordEmbedder(),
        settings=SETTINGS,
        on_progress=lambda progress: print(progress.done, progress.source, progress.chunks, flush=True),
    )
