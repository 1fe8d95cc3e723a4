"""The grammar under which texts and their places are always well-formed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from minicpm_core.guidance import Constraint

Form = Literal["tagged", "nested"]
"""How a line is written; `EXAMPLES` shows both."""
EXAMPLES: dict[Form, str] = {
    "tagged": "<ref>text</ref><box>x1 y1 x2 y2</box>",
    "nested": "<ref>text<box>x1</box><box>y1</box><box>x2</box><box>y2</box></ref>",
}
TEXT_TOKENS = 128
"""Most tokens of one text."""
LINE_TOKENS: dict[Form, int] = {"tagged": TEXT_TOKENS + 42, "nested": TEXT_TOKENS + 72}
"""Most tokens of a line: its text, and each character of its tags, of four numbers of four digits, and of its end."""
_TEXT = r"/[^\s<\x00-\x1f\x7f][^<\x00-\x1f\x7f]*/"
"""Anything but control characters; where tags are characters, "<" must begin one."""
_TEXT_BEFORE_TOKENS = r"/[^\s<\x00-\x1f\x7f]([^<\x00-\x1f\x7f]|<[^\/rb<\x00-\x1f\x7f])*/"
"""Anything but control characters and the beginnings of tags."""
_NUMBER = "(0|[1-9][0-9]{0,2}|1000)"


def constrain_boxes(marker: Callable[[str], str], form: Form = "tagged") -> Constraint:
    """Return the constraint of an answer: lines of texts with their places, or nothing at all.

    Numbers are 0 to 1000 without leading zeros, x1 <= x2 and y1 <= y2; only between tags that are tokens of the model's
    own, which the nested form has between the numbers, their order is not a grammar's matter. The last line is whole:
    none is begun for which the tokens may not suffice.

    Args:
        marker: returns the Lark expression of a tag: a special token, or its characters.
        form: how a line is written.
    """
    most = LINE_TOKENS[form]

    def write(tokens: int) -> str:
        if tokens < most:
            raise ValueError(
                f"{tokens} tokens are left for the answer and one line may take {most}; allow more "
                "max_new_tokens, or load with a larger context_window"
            )
        return write_grammar(marker, form)

    return Constraint(write, reserve=most)


def write_grammar(marker: Callable[[str], str], form: Form = "tagged") -> str:
    """Return the grammar in Lark, as llguidance reads it."""
    ref, end, box, close = (marker(f"<{name}>") for name in ("ref", "/ref", "box", "/box"))
    tokens = end.startswith("<[")
    if form == "tagged":
        between, line = " ", f'{ref} text {end} {box} PLACE {close} "\\n"'
    elif tokens:
        between, line = "", f'{ref} text {" ".join([f"{box} NUMBER {close}"] * 4)} {end} "\\n"'
    else:
        between, line = r"<\/box><box>", f'{ref} text {box} PLACE {close} {end} "\\n"'
    text = _TEXT_BEFORE_TOKENS if tokens else _TEXT
    rules = ["start: line*", f"line: {line}", f"text[max_tokens={TEXT_TOKENS}]: {text}"]
    if not between:
        return "\n".join([*rules, f"NUMBER: /{_NUMBER}/"])
    columns = _ordered("COLUMNS", "", f"{between}{_NUMBER}", between)
    rows = _ordered("ROWS", f"{_NUMBER}{between}", "", between)
    return "\n".join([*rules, "PLACE: COLUMNS & ROWS", *columns, *rows])


def _ordered(name: str, before: str, behind: str, between: str) -> list[str]:
    """Return terminals for four numbers of which two, with one between them, are in order.

    Two numbers of the same length are in order if their first digit that differs is; as an intersection of "this digit
    is equal" and "this digit is smaller" that takes ten alternatives a digit, and not one for each number.
    """

    def terminal(pairs: Iterable[tuple[str, str]]) -> str:
        either = "|".join(f"{first}{between}{_NUMBER}{between}{second}" for first, second in pairs)
        return f"/{before}({either}){behind}/"

    ways = [terminal([(_NUMBER, "1000"), ("[0-9]", "[1-9][0-9]{1,2}"), ("[1-9][0-9]", "[1-9][0-9]{2}")])]
    rules = []
    for length in (1, 2, 3):
        equal: list[str] = []
        for at in range(length):
            last = at == length - 1
            least = 1 if at == 0 and length > 1 else 0

            def place(digit: str, at: int = at, length: int = length) -> str:
                return "[0-9]" * at + digit + "[0-9]" * (length - at - 1)

            same, smaller = f"{name}_{length}{at}_SAME", f"{name}_{length}{at}_SMALLER"
            step = 0 if last else 1  # at the last digit, equal numbers are in order too
            rules.append(f"{same}: " + terminal((place(str(d)), place(str(d))) for d in range(least, 10)))
            pairs = ((place(str(d)), place(f"[{d + step}-9]")) for d in range(least, 10 - step))
            rules.append(f"{smaller}: " + terminal(pairs))
            ways.append("(" + " & ".join([*equal, smaller]) + ")")
            equal.append(same)
    return [f"{name}: {' | '.join(ways)}", *rules]
