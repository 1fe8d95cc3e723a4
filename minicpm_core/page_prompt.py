"""Pages in the answer step: shown to the model as pictures, with room made in memory before."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minicpm_core.rag import Passage

if TYPE_CHECKING:
    from minicpm_core.engine import Engine
    from minicpm_core.index import Index


def show_pages(passages: Sequence[Passage], *, sees: bool, name: str) -> dict[int, Mapping[str, Any]]:
    """Return the parts of a message that show the pages among the passages, by their numbers from 1.

    A model that cannot see is given the text of a page where it has one.

    Args:
        passages: in the order of their numbers.
        sees: whether the model takes pictures.
        name: of the model, for messages.

    Raises:
        ValueError: a page is a picture without text, and the model cannot see; or the page is gone.
    """
    from minicpm_core.index.pages import show_page

    parts: dict[int, Mapping[str, Any]] = {}
    for n, passage in enumerate(passages, start=1):
        if passage.thumbnail is None or (not sees and passage.text.strip()):
            continue
        if not sees:
            page = "" if passage.page is None else f", page {passage.page},"
            raise ValueError(
                f"{passage.source}{page} is a picture in the index, and {name} reads text only; give a vision model, "
                "or index with pages='text' and a page_model that reads pages into text"
            )
        picture = base64.b64encode(show_page(passage)).decode()
        parts[n] = {"type": "image", "base64": picture, "mime_type": "image/jpeg"}
    return parts


class EngineSeat:
    """The engine of a chain over an index with pictures: its embedders and the engine make room for each other.

    Args:
        load: loads the engine, or returns the loaded one.
        index: what is searched; None where it is not ours.
        limit: bytes of all models together; None is no limit.
        own: whether the engine may be closed, since `load` loads it again.
    """

    def __init__(self, load: Callable[[], Engine], index: Index | None, limit: int | str | None, *, own: bool) -> None:
        from minicpm_core.sizes import parse_bytes

        self._load, self._index, self._own = load, index, own
        self._limit = None if limit is None else parse_bytes(limit)
        self._engine: Engine | None = None
        self._size: int | None = None

    @property
    def memory_bytes(self) -> int | None:
        """What the engine takes, None as long as it was not loaded; 0 while it is not in memory but was."""
        return self._size

    def before_search(self) -> None:
        """Close the engine unless the index's embedder of pages fits beside it."""
        from minicpm_core.index.residence import release_unless_fitting

        if self._index is None or self._limit is None or not self._index.count_pages():
            return
        self._index.memory_limit = self._limit
        if self._own and self._engine is not None and self._engine.model is not None:
            release_unless_fitting(self._index.pictures.embedder, [self._index.embedder, self], self._limit)

    def open(self) -> Engine:
        """Return the engine, loaded after the embedders have made room for it."""
        if self._index is not None and self._limit is not None and self._index.count_pages():
            self._index.make_room(self, self._limit)
        self._engine = self._load()
        report = getattr(self._engine, "memory_report", None)
        self._size = int(report()["total"]) if callable(report) and self._limit is not None else None
        return self._engine

    def release(self) -> None:
        """Close the engine."""
        if self._engine is not None and self._own:
            self._engine.close()
