"""Whether passages answer a question, by the model's own odds of yes and no: sharper than waiting for its refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minicpm_core.rag import RagSettings, detect_language
from minicpm_core.yes_no import yes_no_odds

if TYPE_CHECKING:
    from minicpm_core.engine import Engine


def answerability(engine: Engine, question: str, messages: Sequence[Mapping[str, Any]], settings: RagSettings) -> float:
    """Return log(p(yes) / p(no)) of the model, asked below a prompt whether its passages contain the answer.

    What the model reads of the prompt serves for the answer too.

    Args:
        engine: the loaded model that is to answer.
        question: its language is that of the words of yes and no.
        messages: of `build_messages`.
        settings: `answerable_prompts` are asked.

    Raises:
        ValueError: the prompt is longer than the context window, or the tokenizer begins yes and no alike.
    """
    language = detect_language(question)
    *before, last = messages
    content, ask = last["content"], settings.answerable_prompts[language]
    asked = f"{content}\n\n{ask}" if isinstance(content, str) else [*content, {"type": "text", "text": ask}]
    return yes_no_odds(engine, [*map(dict, before), {**last, "content": asked}], language)


def is_unanswered(
    load: Callable[[], Engine], question: str, messages: Sequence[Mapping[str, Any]], settings: RagSettings
) -> bool:
    """Tell whether the question is refused since the model finds no answer in the passages; see `answerability`.

    `load` returns the engine; it is not called where `settings.min_answerability` says nothing about the language.
    """
    least = settings.min_answerability.get(detect_language(question))
    return least is not None and answerability(load(), question, messages, settings) < least
