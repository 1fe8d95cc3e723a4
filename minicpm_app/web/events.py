"""What the page does when something is clicked, typed or dropped."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_app.web.answering import answer, ask_documents, ask_model
from minicpm_app.web.collection import Collection
from minicpm_app.web.conversation import Conversation, Conversations, Turn
from minicpm_app.web.drawing import draw_attached, draw_conversation, draw_source, draw_turn
from minicpm_app.web.highlights import (
    PagePicture,
    PageText,
    draw_kept_page,
    draw_page,
    has_pictures,
    is_unchanged,
    mark_text,
)
from minicpm_app.web.library import Library
from minicpm_app.web.texts import say
from minicpm_core.rag import Language, Passage

if TYPE_CHECKING:
    from minicpm_core.index import Index

MOST_PICTURES = 8
"""That go with a question."""
_REDRAW = 0.08
"""Seconds between two drawings of an answer, and as many again for every `_LONG` characters of it."""
_LONG = 4_000


class Refused(ValueError):
    """What was asked cannot be done; the message is for the person at the page."""


class Desk:
    """The model, the collections and the conversations behind the page.

    Args:
        chat: a ChatMiniCPM.
        library: the collections.
    """

    def __init__(self, chat: Any, library: Library) -> None:
        self.chat = chat
        self.library = library
        self.conversations = Conversations()

    @property
    def engine(self) -> Any:
        """The model's engine, which is loaded again where it made room for the embeddings of pages."""
        return self.chat.load_engine()

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures."""
        return self.engine.family.vision is not None

    def facts(self, language: Language) -> dict[str, str]:
        """Return what the head of the page tells about the model."""
        from minicpm_core.sizes import gib

        memory = gib(self.engine.memory_report()["total"])
        context = f"{self.engine.context_window:,} {say(language, 'tokens')}"
        name = Path(str(self.chat.model)).name or str(self.chat.model)
        seeing = f" ({say(language, 'sees')})" if self.sees else ""
        return {"model": name + seeing, "memory": memory, "context": context}

    def draw(self, visitor: str, language: Language) -> str:
        """Return the conversation as it stands."""
        turns = self.conversations.get(visitor).turns
        return draw_conversation(turns, language, window=self.engine.context_window)

    async def ask(
        self, visitor: str, language: Language, collection_id: str | None, question: str
    ) -> AsyncIterator[tuple[str, str]]:
        """Answer a question; yield the turns that are over, and the one in work, as HTML.

        Raises:
            Refused: there is nothing to answer, or the last answer is not over.
        """
        conversation = self.conversations.get(visitor)
        if conversation.run:
            raise Refused(say(language, "busy"))
        if not question.strip():
            raise Refused(say(language, "no_question"))
        pictures = conversation.pictures
        collection = self.library.find(collection_id)
        index = await self._open(collection) if collection and not pictures else None
        if collection and not pictures and (index is None or not index.count() + index.count_pages()):
            raise Refused(say(language, "empty_collection"))
        turn = Turn(question.strip(), collection.id if index and collection else None, list(pictures.values()))
        history, conversation.pictures = conversation.history(), {}
        if index is not None:
            stream = ask_documents(self.chat, index, turn.question, history)
        else:
            stream = ask_model(self.engine, turn.question, history, list(pictures), self._sampling())
        conversation.turns.append(turn)
        over, number = self._over(conversation, language), len(conversation.turns) - 1
        drawn = 0.0
        async with aclosing(answer(self.conversations, conversation, turn, stream)) as steps:
            async for ahead in steps:
                if time.monotonic() - drawn >= _REDRAW * (1 + len(turn.answer + turn.reasoning) / _LONG):
                    yield over, self._draw(turn, number, language, ahead)
                    drawn = time.monotonic()
        yield self.draw(visitor, language), ""

    async def _open(self, collection: Collection) -> Index | None:
        try:
            return await asyncio.to_thread(self.library.index, collection)
        except (OSError, RuntimeError) as error:  # a server that is away, an index that is damaged
            raise Refused(" ".join(str(error).split())) from error

    def stop(self, visitor: str) -> None:
        """End the answer in work within a token."""
        self.conversations.get(visitor).stop()

    def clear(self, visitor: str) -> None:
        """Forget the conversation."""
        self.stop(visitor)
        conversation = self.conversations.get(visitor)
        conversation.turns, conversation.pictures = [], {}

    def attach(self, visitor: str, files: Sequence[Path], language: Language) -> None:
        """Keep pictures for the next question.

        Raises:
            Refused: too many, or one that is no picture; the others are kept.
        """
        pictures = self.conversations.get(visitor).pictures
        bad = []
        for file in files:
            if len(pictures) >= MOST_PICTURES and file not in pictures:
                raise Refused(say(language, "most_pictures", count=MOST_PICTURES))
            try:
                pictures[file] = shrink(file)
            except (ValueError, OSError):
                bad.append(file.name)
        if bad:
            raise Refused(say(language, "bad_picture", name=", ".join(bad)))

    def detach(self, visitor: str, number: int) -> None:
        """Drop one of the pictures that were kept for the next question."""
        pictures = self.conversations.get(visitor).pictures
        for picture in list(pictures)[number : number + 1]:
            del pictures[picture]

    def draw_attached(self, visitor: str, language: Language) -> str:
        """Return the pictures that go with the next question."""
        return draw_attached(list(self.conversations.get(visitor).pictures.values()), language)

    async def open_source(self, visitor: str, language: Language, number: int, n: int) -> str:
        """Return the page on which passage `n` of a turn stands, as HTML.

        Raises:
            Refused: there is no such turn or passage, or its collection is gone.
        """
        turns = self.conversations.get(visitor).turns
        if not (0 <= number < len(turns) and 1 <= n <= len(turns[number].passages)):
            raise Refused(say(language, "source_here"))
        collection = self.library.find(turns[number].collection)
        if collection is None:
            raise Refused(say(language, "source_gone", source=turns[number].passages[n - 1].source))
        return await asyncio.to_thread(self._draw_source, turns[number], n, collection, language)

    def _draw_source(self, turn: Turn, n: int, collection: Collection, language: Language) -> str:
        passage, quote = turn.passages[n - 1], turn.quotes.get(n, "")
        unchanged = is_unchanged(passage)
        elsewhere = unchanged is None and collection.chroma_url is not None
        elsewhere = elsewhere and not collection.holds(Path(str(passage.metadata.get("path", ""))))
        note = ""
        page: PagePicture | None = None
        if not unchanged:
            name = "source_elsewhere" if elsewhere else "source_gone" if unchanged is None else "source_changed"
            note = say(language, name, source=passage.source)
        if unchanged and has_pictures(passage):
            page = draw_page(passage, quote)
        elif passage.thumbnail:
            page = draw_kept_page(passage)
        shown = page or self._mark(passage, quote, collection, whole=bool(unchanged or elsewhere))
        return draw_source(passage, n, shown, note, language)

    def _mark(self, passage: Passage, quote: str, collection: Collection, *, whole: bool) -> PageText:
        """Return the text of the page with the passage marked, or the passage alone."""
        try:
            index = self.library.index(collection) if whole else None
            if index:
                place = passage.metadata
                return mark_text(index.page_text(passage), int(place["start"]), int(place["end"]), quote)
        except (ValueError, OSError):
            pass  # of an index of an older version, which keeps no pages, or of a server that is away
        return mark_text(passage.text, 0, len(passage.text), quote)

    def _over(self, conversation: Conversation, language: Language) -> str:
        """Return the turns before the last one."""
        done = conversation.turns[:-1]
        return draw_conversation(done, language, window=self.engine.context_window) if done else ""

    def _draw(self, turn: Turn, number: int, language: Language, ahead: int) -> str:
        return draw_turn(turn, number, language, window=self.engine.context_window, ahead=ahead)

    def _sampling(self) -> Any:
        from minicpm_core import Sampling

        return Sampling(temperature=self.chat.temperature, seed=self.chat.seed, max_new_tokens=self.chat.max_tokens)


def shrink(picture: Path) -> str:
    """Return a small copy of a picture as a data URI."""
    from minicpm_core.images import read_image

    image = read_image(str(picture))
    image.thumbnail((320, 320))
    written = io.BytesIO()
    image.convert("RGB").save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
