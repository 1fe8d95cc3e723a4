"""A prompt on its way to token ids: messages checked, written by the chat template, and tokenized."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from minicpm_core.control_tokens import ControlTokens, find_markers, refuse_half_characters
from minicpm_core.decoding import THINK
from minicpm_core.messages import check_messages
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.rendering import lay_out
from minicpm_core.templates import render_template
from minicpm_core.types import Message, Prompt
from minicpm_core.vision.prompt import PictureReader, Pictures, take_pictures

if TYPE_CHECKING:
    from minicpm_core.checkpoints import Checkpoint
    from minicpm_core.plans import AnswerPlan


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """A prompt as the model reads it.

    Args:
        text: with seams inside what only looks like control tokens.
        ids: its token ids, BOS included where the family begins with it.
        pictures: with the places of their tokens; None where there are none.
    """

    text: str
    ids: tuple[int, ...]
    pictures: Pictures | None

    @property
    def opens_thinking(self) -> bool:
        """Whether it ends with the tag that opens the reasoning."""
        return self.text.rstrip().endswith(THINK[0])

    @property
    def characters_per_token(self) -> float:
        """How long its tokens are, on average."""
        return len(self.text) / len(self.ids)

    def leave_room(self, context_window: int) -> int:
        """Return how many tokens of the context window are left for the answer.

        Raises:
            ValueError: the prompt is empty, or leaves none.
        """
        if not self.ids:
            raise ValueError("the prompt is empty; give at least one character")
        if len(self.ids) < context_window:
            return context_window - len(self.ids)
        raise ValueError(
            f"the prompt has {len(self.ids)} tokens{self.pictures.describe() if self.pictures else ''} and the context "
            f"window {context_window}, of which one must be left for the answer; shorten the prompt, or load with a "
            "larger context_window or memory_limit"
        )


class PromptEncoder:
    """Writes and encodes a checkpoint's prompts, for callers in any number of threads.

    Args:
        checkpoint: whose family and files say how.
        tokenizer: a fast tokenizer of transformers with the chat template.
    """

    def __init__(self, checkpoint: Checkpoint, tokenizer: Any) -> None:
        self._family, self._tokenizer = checkpoint.family, tokenizer
        self.lock = threading.Lock()  # fast tokenizers are not safe to share between threads
        vision = self._family.vision
        self.reader: PictureReader | None = import_module(vision.module).load_pictures(checkpoint) if vision else None
        self.control = ControlTokens(
            tokenizer,
            template=str(tokenizer.chat_template),
            markers=find_markers(self._family).union(self.reader.markers.texts if self.reader else ()),
            thoughts=self._family.tags,
        )

    def encode(
        self,
        messages: Prompt,
        plan: AnswerPlan,
        *,
        enable_thinking: bool | None = None,
        pictures: PictureSettings | None = None,
    ) -> EncodedPrompt:
        """Return chat messages, or a text that is completed as it stands, as the model reads them.

        Args:
            messages: dicts with "role" and "content", or a text.
            plan: of the answer; what the model has to know of it is told in the prompt.
            enable_thinking: switches reasoning on or off; None leaves it to the chat template.
            pictures: how they are read; values that are None are the checkpoint's.
        """
        text, shown = (
            (messages, None) if isinstance(messages, str) else self._render(messages, plan, enable_thinking, pictures)
        )
        with self.lock:
            ids, offsets = self.control.encode(text, offsets=shown is not None)
        bos = self._tokenizer.bos_token_id
        first = [bos] if self._family.add_bos and bos is not None and ids[:1] != [bos] else []
        return EncodedPrompt(text, (*first, *ids), shown and shown.at_tokens(offsets, shift=len(first)))

    def render(
        self,
        messages: Sequence[Message],
        plan: AnswerPlan,
        *,
        enable_thinking: bool | None = None,
        pictures: PictureSettings | None = None,
    ) -> str:
        """Return the text that the chat template makes of the messages; the arguments are those of `encode`."""
        return self.control.join(self._render(messages, plan, enable_thinking, pictures)[0])

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text as it stands, nothing added."""
        refuse_half_characters(text)
        with self.lock:
            return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _render(
        self,
        messages: Sequence[Message],
        plan: AnswerPlan,
        enable_thinking: bool | None,
        pictures: PictureSettings | None,
    ) -> tuple[str, Pictures | None]:
        """Return the text with seams, and its pictures with their places in it."""
        settings, reader = pictures or PictureSettings(), None
        if self.reader:
            settings = settings.over(self.reader.defaults)
            reader = self.reader.adapt(settings)
        else:
            settings.refuse_unseen()
        checked = check_messages(messages, vision=reader is not None, settings=settings)
        template = str(self._tokenizer.chat_template)
        laid, tools = lay_out(checked, plan.shown, plan.schema, plan.dialect, template, self.control)
        options = {"tools": tools, "enable_thinking": enable_thinking}
        options = {name: value for name, value in options.items() if value is not None}
        marked = take_pictures(laid, reader) if reader else None
        with self.lock:
            text = render_template(self._tokenizer, marked.messages if marked else laid, **options)
        return marked.insert_into(text) if marked else (text, None)
