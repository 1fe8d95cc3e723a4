"""Where refusals of questions that the documents answer come from, and what would change them, measured both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.tables import format_table
from minicpm_app.evaluate_rag import ask_all, show
from minicpm_core.index import Index
from minicpm_core.rag import Passage, build_messages, is_refusal
from minicpm_core.rag_evaluation import DEPTH, Question
from minicpm_core.yes_no import first_logits

MISSED = "the search: the right passage is not among those shown"
DISTRACTED = "the other passages: shown nothing but the right one, the model answers"
MODEL = "the model: shown nothing but the right passage, it refuses too"


def explain(chat: Any, index: Index, questions: Sequence[Question], plain: Sequence[Question]) -> str:
    """Return the causes of false refusals as a table, and what a second try and another threshold would do.

    Args:
        chat: a `ChatMiniCPM` with a loaded engine.
        index: of the documents.
        questions: of both kinds.
        plain: those of them that use the document's words.
    """
    from langchain_minicpm import create_rag_chain

    settings = index.settings
    answers = ask_all(create_rag_chain(chat, index), questions)
    refused = [given for given in answers if is_refusal(given.answer, settings)]
    causes = Counter(
        (find_cause(chat, index, given.question, given.passages), _kind(given.question, plain))
        for given in refused
        if given.question.source is not None
    )
    counts = Counter(_kind(question, plain) for question in questions if question.source is not None)
    table = format_table(
        ("false refusals because of", *(f"of {count} {name}" for name, count in counts.items())),
        [[cause, *(causes[cause, name] for name in counts)] for cause in (MISSED, DISTRACTED, MODEL)],
    )
    again = ask_all(create_rag_chain(chat, index, settings=replace(settings, k=1)), [g.question for g in refused])
    told = [given for given in again if not is_refusal(given.answer, settings)]
    wanted = [given for given in told if given.question.source is not None]
    right = sum(given.question.answer in given.answer for given in wanted)
    false = sum(given.question.source is not None for given in refused)
    lines = [
        f"A second try with the best passage alone, where the model refused: of {false} false refusals it would answer "
        f"{len(wanted)}, {right} of them rightly; of {len(refused) - false} right refusals it would answer "
        f"{len(told) - len(wanted)} falsely.",
        *describe_odds([(given.question, refusal_odds(chat, given.question, given.passages)) for given in answers]),
    ]
    return table + "\n\n" + "\n".join(f"* {line}" for line in lines)


def find_cause(chat: Any, index: Index, question: Question, shown: Sequence[Passage]) -> str:
    """Return why a question that the documents answer was refused."""
    if not any(question.is_right(passage) for passage in shown):
        return MISSED
    right = next(p for p in index.search(question.question, DEPTH) if question.is_right(p))
    said = chat.invoke(build_messages(question.question, [right.text])).text
    return MODEL if is_refusal(said, index.settings) else DISTRACTED


def refusal_odds(chat: Any, question: Question, passages: Sequence[Passage]) -> float:
    """Return log(p / (1 - p)) of p, the probability that the answer's first token begins a refusal."""
    import torch

    from minicpm_core.rag import REFUSALS

    engine = chat.load_engine()
    logits = first_logits(engine, build_messages(question.question, [passage.text for passage in passages]))
    begins = sorted({engine.tokenize(text)[0] for text in REFUSALS.values()})
    p = torch.softmax(logits.double(), 0)[begins].sum().clamp(1e-12, 1 - 1e-12)
    return float(torch.log(p / (1 - p)))


def describe_odds(odds: Sequence[tuple[Question, float]]) -> list[str]:
    """Return what a threshold on the model's own odds of refusing could reach, chosen on the questions themselves."""
    wanted = sorted(value for question, value in odds if question.source is not None)
    others = sorted(value for question, value in odds if question.source is None)
    above = sum((o > w) + 0.5 * (o == w) for w in wanted for o in others) / (len(wanted) * len(others))
    highest = wanted[-1 - int(0.05 * len(wanted))]
    lowest = others[-round(0.85 * len(others))]
    return [
        f"The model's own odds of refusing tell the two kinds of questions apart with an area under the curve of "
        f"{above:.2f}. With the best threshold on them, 5 % false refusals leave "
        f"{show((sum(o > highest for o in others), len(others)))} right ones; 85 % right ones cost "
        f"{show((sum(w >= lowest for w in wanted), len(wanted)))} false ones."
    ]


def _kind(question: Question, plain: Sequence[Question]) -> str:
    return question.language + ("" if question in plain else ", other words")
