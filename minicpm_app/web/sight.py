"""Scanned pages and pictures on their way into collections: what looks at them, and what is said where nothing does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minicpm_app.web.texts import say
from minicpm_core.rag import Language


@dataclass(frozen=True)
class Sight:
    """How scanned pages and pictures get into collections.

    Args:
        pages: `RagSettings.pages` of new indexes; None is the default, text.
        page_embeddings: of new indexes whose pages are stored as pictures; None is the default of `build_index`.
        page_model: what reads pages into text: the name of a vision model, or a ChatMiniCPM that sees; None is nothing.
    """

    pages: Literal["text", "image", "auto"] | None = None
    page_embeddings: str | None = None
    page_model: Any = None

    @property
    def sees(self) -> bool:
        """Whether scanned pages and pictures are taken into new collections."""
        return self.page_model is not None or self.pages not in (None, "text")

    def options(self, mode: str | None, go_on: Callable[[], None]) -> dict[str, Any]:
        """Return the arguments of `build_index` that say how pages are looked at.

        Args:
            mode: `RagSettings.pages` of the index; None for a new one.
            go_on: called after every token that is read; what it raises ends the reading.
        """
        if (mode or self.pages or "text") == "text":
            model = self.page_model
            return {"page_model": model if model is None or isinstance(model, str) else PageReading(model, go_on)}
        return {} if mode else {"pages": self.pages, "page_embeddings": self.page_embeddings}


class PageReading:
    """The model of the page as `page_model` of `build_index`, which gives up within a token.

    Args:
        chat: a ChatMiniCPM that sees.
        go_on: see `Sight.options`.
    """

    def __init__(self, chat: Any, go_on: Callable[[], None]) -> None:
        self._chat, self._go_on = chat, go_on
        self.name = Path(str(chat.model)).name or str(chat.model)

    @property
    def context_window(self) -> int:
        """Tokens of prompt and answer."""
        return int(self._chat.load_engine().context_window)

    def generate(self, messages: Sequence[dict[str, Any]], *, sampling: Any) -> Any:
        """Return the model's answer, as `Engine.generate` does."""
        from minicpm_core.types import Chunk

        answer = Chunk()
        with closing(self._chat.load_engine().stream(list(messages), sampling=sampling)) as chunks:
            for chunk in chunks:
                self._go_on()
                answer = answer + chunk
        return answer


def explain(reason: str, language: Language) -> str:
    """Return why something was not read, in words for who is at the page: settings of Python are options there."""
    from minicpm_core.index.looking import GIVE_AGAIN
    from minicpm_core.index.pages import HOW_TO_LOOK, NO_TEXT_LAYER, PICTURE_UNREAD

    for whole, name in ((NO_TEXT_LAYER, "scan_unread"), (PICTURE_UNREAD, "picture_unread")):
        reason = reason.replace(whole, say(language, name))
    for part in (HOW_TO_LOOK, GIVE_AGAIN):
        reason = reason.replace(part, say(language, "needs_sight"))
    return reason
