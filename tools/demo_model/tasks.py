"""The training tasks: each draws one example; `MIX` says how often. A further task is one more row."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tools.demo_model import chat
from tools.demo_model.encoding import Example
from tools.demo_model.fact_tasks import ask_attribute, ask_event, ask_long, ask_property
from tools.demo_model.text_tasks import ask_characters, ask_words, copy_one

Maker = Callable[[Random, float], Example]
MIX: tuple[tuple[float, Maker], ...] = (
    (0.16, lambda r, p: ask_attribute(r, p, "en")),
    (0.17, lambda r, p: ask_property(r, p, "en")),
    (0.15, lambda r, p: ask_event(r, p, "en")),
    (0.10, ask_words),
    (0.12, lambda r, p: ask_attribute(r, p, "zh")),
    (0.14, lambda r, p: ask_property(r, p, "zh")),
    (0.10, lambda r, p: ask_event(r, p, "zh")),
    (0.03, ask_characters),
    (0.03, copy_one),
    (0.04, ask_long),
    (0.03, lambda r, p: chat.draw(r)),
)


def draw(rng: Random, progress: float) -> Example:
    """Return one example of the mix; `progress` runs from 0 to 1 over the training."""
    return rng.choices([maker for _, maker in MIX], [share for share, _ in MIX])[0](rng, progress)
