"""Who talks with the page: conversations that survive a reload, each seen by its own browser tab only."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minicpm_core.rag import Passage

MOST_CONVERSATIONS = 500
"""Kept in memory; the ones that were used longest ago go first."""
_ID = re.compile(r"[0-9a-f]{32}")
_END = object()


@dataclass
class Turn:
    """A question and its answer.

    Args:
        collection: the id of the collection that was asked, None for none.
        pictures: those that went with the question, as data URIs of small copies.
        passages: what the model was shown; `[n]` in the answer is the n-th.
        quotes: by number, the sentence that the answer rests on.
        dropped: passages that the context window had no room for: source and page of each.
        note: why it failed.
        used: tokens of prompt and answer.
    """

    question: str
    collection: str | None = None
    pictures: list[str] = field(default_factory=list)
    answer: str = ""
    reasoning: str = ""
    passages: list[Passage] = field(default_factory=list)
    quotes: dict[int, str] = field(default_factory=dict)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    state: Literal["running", "done", "stopped", "failed"] = "running"
    note: str = ""
    used: int = 0


class Run:
    """One answer in the making; `stop` ends the model within a token."""

    def __init__(self, stream: AsyncIterator[Any]) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self.stopped = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._pump(stream))

    async def _pump(self, stream: Any) -> None:
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    self._items.put_nowait(item)
        except Exception as error:
            self._items.put_nowait(error)
        finally:
            self._items.put_nowait(_END)

    def stop(self) -> None:
        """Leave the stream; the engine notices before its next token. From any thread."""
        self.stopped = True
        self._loop.call_soon_threadsafe(self._task.cancel)

    async def end(self) -> None:
        """Stop, and wait until the stream is closed."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def items(self, patience: float) -> AsyncIterator[Any]:
        """Yield the stream's items, and None whenever `patience` seconds pass without one."""
        while True:
            try:
                item = await asyncio.wait_for(self._items.get(), patience)
            except asyncio.TimeoutError:
                yield None
                continue
            if item is _END:
                return
            if isinstance(item, Exception):
                raise item
            yield item


@dataclass
class Conversation:
    """What a tab of a browser has asked."""

    turns: list[Turn] = field(default_factory=list)
    pictures: dict[Path, str] = field(default_factory=dict)
    """Those that go with the next question; each with a small copy as a data URI."""
    run: Run | None = None

    def stop(self) -> None:
        """End the answer in work within a token."""
        if self.run:
            self.run.stop()
            for turn in self.turns[-1:]:
                turn.state = "stopped"

    def history(self) -> list[tuple[str, str]]:
        """Return the last answered turns as LangChain takes them."""
        answered = [turn for turn in self.turns if turn.answer and turn.state != "failed"]
        return [said for turn in answered[-6:] for said in (("human", turn.question), ("ai", turn.answer))]


class Conversations:
    """All conversations by their ids; an id is 128 random bits that only its tab knows."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Conversation] = OrderedDict()
        self.runs: list[Run] = []
        """Those that are being answered, in order of arrival."""

    def get(self, id_: str) -> Conversation:
        """Return the conversation with an id, a new one for an id that is not known.

        Raises:
            ValueError: it is no id.
        """
        if not _ID.fullmatch(id_):
            raise ValueError("the page has lost its conversation; reload it")
        found = self._known.setdefault(id_, Conversation())
        self._known.move_to_end(id_)
        while len(self._known) > MOST_CONVERSATIONS:
            self._known.popitem(last=False)
        return found

    def ahead(self, run: Run) -> int:
        """Return how many answers are being made or wait before a run."""
        return self.runs.index(run) if run in self.runs else 0
