"""Questions on the documents that are not trained on."""

from __future__ import annotations

from random import Random

from minicpm_core.rag import Language
from tools.demo_model.document_tasks import Kind, draw_question
from tools.demo_model.heldout import Question


def make_document_set(language: Language, kind: Kind, *, count: int, seed: int) -> list[Question]:
    """Return `count` questions of `kind` over up to five passages, the same ones for the same seed."""
    rng = Random(f"{seed} {language} {kind}")
    return [_make(rng, language, kind) for _ in range(count)]


def _make(rng: Random, language: Language, kind: Kind) -> Question:
    question, answering, passages = draw_question(rng, language, kind, held_out=True)
    if answering is None:
        return Question(question, passages, None, language)
    at = rng.randint(0, len(passages))
    passages.insert(at, answering)
    return Question(question, passages, at + 1, language)
