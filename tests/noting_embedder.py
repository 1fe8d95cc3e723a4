"""An embedder that notes which process embeds how much; other processes import it without what the tests import."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.killed_build import WordEmbedder


class NotingEmbedder(WordEmbedder):
    """Words hashed into numbers; notes go to `folder`, and only process `home` (None: each) gives the usual vectors."""

    def __init__(self, folder: Path, home: int | None = None) -> None:
        super().__init__()
        self.folder, self.home = folder, home

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        with (self.folder / str(os.getpid())).open("a") as file:
            file.write("x" * len(texts))
        time.sleep(0.02)  # so that no process does it all
        return super().embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        vector = super().embed_query(text)
        return vector if self.home in (None, os.getpid()) else vector[::-1]
