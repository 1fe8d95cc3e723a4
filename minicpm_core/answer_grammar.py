"""Grammars of answers over passages: numbers that were given, or nothing but sentences of the passages."""

from __future__ import annotations

import json
from collections.abc import Sequence

from minicpm_core.index.splitter import sentences
from minicpm_core.rag import RagSettings, detect_language, write_line

_MOST_QUOTES = 4


def answer_grammar(question: str, passages: Sequence[str], settings: RagSettings) -> str:
    """Return the grammar of an answer over `passages`, which the prompt shows in this order; see the two below."""
    if settings.quote_only:
        return quote_grammar(passages, settings.refusals[detect_language(question)])
    return cite_grammar(len(passages))


def cite_grammar(passages: int) -> str:
    """Return the Lark grammar (llguidance) of a text in which `[n]` can only be a number from 1 to `passages`.

    A bracket that does not begin with a digit stays free; 【n】, as some models write it, follows the same rule.
    """
    numbers = "|".join(str(n) for n in range(1, passages + 1)) or "[^0-9]"
    given = rf"[\[【]*(\[({numbers})\]|【({numbers})】)"
    return rf"start: /([^\[【]|{given}|[\[【]+[^0-9\[【])*[\[【]*/"


def quote_grammar(passages: Sequence[str], refusal: str) -> str:
    """Return the Lark grammar of answers that only quote: lines "[n] sentences", or the refusal.

    The sentences of a line follow each other in their passage, so an answer is verbatim by construction, and all tokens
    behind the few that tell the sentences apart are forced, which costs no step of the model.

    Args:
        passages: as the prompt shows them, in the order of their numbers.
        refusal: the sentence that says that the passages do not tell.
    """
    lines, rules = [], []
    for n, passage in enumerate(passages, start=1):
        text = write_line(passage)
        spans = sentences(text)
        if not spans:
            continue
        starts = [f"s{n}_{at}" for at in range(len(spans))]
        lines.append(f"line_{n}")
        rules.append(f"line_{n}: {_literal(f'[{n}] ')} ({' | '.join(starts)})")
        for at, span in enumerate(spans):
            rule = f"{starts[at]}: {_literal(text[span.start : span.end])}"
            if at + 1 < len(spans):
                rule += f" ({_gap(text[span.end : spans[at + 1].start])} {starts[at + 1]})?"
            rules.append(rule)
    quotes = f'line ("\\n" line){{0,{_MOST_QUOTES - 1}}}'
    begin = f"start: {_literal(refusal)}" + (f" | {quotes}" if lines else "")
    return "\n".join([begin, *([f"line: {' | '.join(lines)}"] if lines else []), *rules])


def _gap(between: str) -> str:
    return _literal(between) if between else ""


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
