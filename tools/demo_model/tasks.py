"""The training tasks: each draws one example; `MIX` says how often. A further task is one more row."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tools.demo_model import chat
from tools.demo_model.document_tasks import ask_document, ask_yes_no
from tools.demo_model.encoding import Example
from tools.demo_model.fact_tasks import ask_attribute, ask_event, ask_long, ask_property
from tools.demo_model.text_tasks import ask_characters, ask_words, copy_one
from tools.demo_model.tool_handoff import ask_handoff
from tools.demo_model.tool_tasks import ask_call, ask_forced, ask_found, ask_none, ask_result, ask_two

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
    (1.10, lambda r, p: ask_document(r, p, "en")),
    (0.60, lambda r, p: ask_document(r, p, "zh")),
    (0.34, lambda r, p: ask_yes_no(r, p, "en")),
    (0.20, lambda r, p: ask_yes_no(r, p, "zh")),
    (0.37, lambda r, p: ask_call(r, p, "en")),
    (0.21, lambda r, p: ask_call(r, p, "zh")),
    (0.04, lambda r, p: ask_two(r, p, "en")),
    (0.03, lambda r, p: ask_two(r, p, "zh")),
    (0.06, lambda r, p: ask_none(r, p, "en")),
    (0.05, lambda r, p: ask_none(r, p, "zh")),
    (0.05, lambda r, p: ask_result(r, p, "en")),
    (0.04, lambda r, p: ask_result(r, p, "zh")),
    (0.05, lambda r, p: ask_found(r, p, "en")),
    (0.03, lambda r, p: ask_found(r, p, "zh")),
    (0.04, lambda r, p: ask_handoff(r, p, "en")),
    (0.02, lambda r, p: ask_handoff(r, p, "zh")),
    (0.03, lambda r, p: ask_forced(r, p, r.choice(("en", "zh")))),
)


def draw(rng: Random, progress: float) -> Example:
    """Return one example of the mix; `progress` runs from 0 to 1 over the training."""
    return rng.choices([maker for _, maker in MIX], [share for share, _ in MIX])[0](rng, progress)
