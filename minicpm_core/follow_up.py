"""Questions that follow others: rewritten to stand alone by the model, or helped with the words of the one before."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minicpm_core.citations import CITATION
from minicpm_core.index.words import content_words, coverage, passage_words, question_words
from minicpm_core.rag import RagSettings, detect_language, is_refusal

if TYPE_CHECKING:
    from minicpm_core.engine import Engine

Turns = Sequence[Mapping[str, str]]
"""A conversation: {"role": "user" or "assistant", "content": text} in order."""

LINE_GRAMMAR = r"start: /[^\r\n]{1,400}/"
"""One line: what a rewritten question may be."""
LONGEST = 96
"""Tokens of a rewritten question."""
_GROUNDED = 0.5
"""Share of a rewritten question's words that must stand in the conversation."""
_FEW_WORDS = 3
"""A question with fewer words of its own leans on the conversation."""
_MOST_TERMS = 12
_LABEL = re.compile(
    r"^\s*(?:(?:last|rewritten|standalone|stand-alone|new)?\s*question|(?:改写后的|最后一个|独立的?|新的?)?问题)\s*[:：]\s*",
    re.IGNORECASE,
)
_LEANS = re.compile(
    r"\b(?:it|its|he|him|his|she|her|hers|they|them|their|theirs|this|that|these|those|there|then|one|ones|former|latter)\b"
    r"|^\s*(?:and|but|or|so|also|what about|how about)\b|[它他她这那其]|^\s*(?:还|呢)|呢\s*[？?]?\s*$",
    re.IGNORECASE,
)


def condense_messages(
    question: str,
    history: Turns,
    settings: RagSettings,
    *,
    room: int | None = None,
    count_tokens: Callable[[list[dict[str, Any]]], int] | None = None,
) -> list[dict[str, str]]:
    """Return the messages that ask the model to rewrite `question` so that it stands alone.

    Args:
        question: the last one.
        history: the conversation before it.
        settings: have the prompts.
        room: longest prompt, in tokens: the earliest turns give way, the last one stays. None is no limit.
        count_tokens: tells the length of messages in tokens; needed with `room`.
    """
    template = settings.condense_prompts[detect_language(question)]
    turns = list(history)
    while True:
        told = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        messages = [{"role": "user", "content": template.format(history=told, question=question)}]
        if room is None or count_tokens is None or len(turns) < 2 or count_tokens(messages) <= room:
            return messages
        del turns[0]


def condense_options(engine: Engine, *, grammar: bool) -> dict[str, Any]:
    """Return the options of a call that rewrites: greedy, short, without reasoning, and one line where a grammar holds.

    Args:
        engine: the model.
        grammar: whether it decodes under a grammar.
    """
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": LONGEST}
    options |= {"enable_thinking": False} if engine.family.thinking else {}
    return options | ({"grammar": LINE_GRAMMAR} if grammar else {})


def settle_question(said: str, question: str, history: Turns, settings: RagSettings) -> str:
    """Return what the model wrote where it is the question, rewritten; else the question, helped by the last turn.

    A rewriting counts when it is in the language of the question, names no passages, is no refusal, nothing that was
    said before and not much longer than the question and a turn, and takes at least half of its words from the
    conversation. Otherwise a question that leans on the conversation ("And its price?") gets the words of the last one.

    Args:
        said: what the model wrote.
        question: as it was asked.
        history: the conversation before it.
        settings: tell a refusal.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    rewritten = _LABEL.sub("", lines[0]).strip(" \"'“”「」*") if lines else ""
    return rewritten if _is_rewriting(rewritten, question, history, settings) else add_terms(question, history)


def add_terms(question: str, history: Turns) -> str:
    """Return the question, with the words of the last one behind it where it leans on the conversation."""
    earlier = [turn["content"] for turn in history if turn["role"] == "user"]
    own = content_words(question)
    if not earlier or not (_LEANS.search(question) or len(own) < _FEW_WORDS):
        return question
    known = {word.casefold() for word in own}
    terms = [word for word in content_words(earlier[-1]) if word.casefold() not in known][:_MOST_TERMS]
    if not terms:
        return question
    is_chinese = detect_language(question) == "zh"
    return f"{question}（{'，'.join(terms)}）" if is_chinese else f"{question} ({' '.join(terms)})"


def search_query(question: str, history: Turns) -> str:
    """Return the text to search with when `follow_up` is "history": the last question asked, then this one."""
    earlier = [turn["content"] for turn in history if turn["role"] == "user"]
    return f"{earlier[-1]} {question}" if earlier else question


def _is_rewriting(text: str, question: str, history: Turns, settings: RagSettings) -> bool:
    said = [turn["content"].strip() for turn in history]
    longest = 2 * len(question) + max(map(len, said), default=0) + 40
    if not text or len(text) > longest or detect_language(text) != detect_language(question):
        return False
    if CITATION.search(text) or text in said or is_refusal(text, settings):
        return False
    known = passage_words("\n".join([question, *said]))
    return coverage(question_words(text), known) >= _GROUNDED
