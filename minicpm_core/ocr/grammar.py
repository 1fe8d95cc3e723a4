"""The grammar under which texts and their places are always well-formed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minicpm_core.guidance import Constraint

TEXT_TOKENS = 128
"""Most tokens of one text."""
LINE_TOKENS = TEXT_TOKENS + 42
"""Most tokens of a line: its text, and each character of `<ref></ref><box>1000 1000 1000 1000</box>` and its end."""
_TEXT = r"/[^\s<\x00-\x1f\x7f][^<\x00-\x1f\x7f]*/"
"""Anything but control characters; where tags are characters, "<" must begin one."""
_TEXT_BEFORE_TOKENS = r"/[^\s<\x00-\x1f\x7f]([^<\x00-\x1f\x7f]|<[^\/rb<\x00-\x1f\x7f])*/"
"""Anything but control characters and the beginnings of tags."""
_NUMBER = "(0|[1-9][0-9]{0,2}|1000)"


def constrain_boxes(marker: Callable[[str], str]) -> Constraint:
    """Return the constraint of an answer: lines of `<ref>text</ref><box>x1 y1 x2 y2</box>`, or nothing at all.

    Numbers are 0 to 1000 without leading zeros, x1 <= x2 and y1 <= y2. The last line is whole: none is begun for which
    the tokens may not suffice.

    Args:
        marker: returns the Lark expression of a tag: a special token, or its characters.
    """

    def write(tokens: int) -> str:
        if tokens < LINE_TOKENS:
            raise ValueError(
                f"{tokens} tokens are left for the answer and one line may take {LINE_TOKENS}; allow more "
                "max_new_tokens, or load with a larger context_window"
            )
        return write_grammar(marker)

    return Constraint(write, reserve=LINE_TOKENS)


def write_grammar(marker: Callable[[str], str]) -> str:
    """Return the grammar in Lark, as llguidance reads it."""
    tags = {name: marker(f"<{name}>") for name in ("ref", "/ref", "box", "/box")}
    text = _TEXT_BEFORE_TOKENS if tags["/ref"].startswith("<[") else _TEXT
    line = f'line: {tags["ref"]} text {tags["/ref"]} {tags["box"]} PLACE {tags["/box"]} "\\n"'
    return "\n".join(
        [
            "start: line*",
            line,
            f"text[max_tokens={TEXT_TOKENS}]: {text}",
            "PLACE: COLUMNS & ROWS",
            *_ordered("COLUMNS", "", f" {_NUMBER}"),
            *_ordered("ROWS", f"{_NUMBER} ", ""),
        ]
    )


def _ordered(name: str, before: str, behind: str) -> list[str]:
    """Return terminals for four numbers of which two, with one between them, are in order.

    Two numbers of the same length are in order if their first digit that differs is; as an intersection of "this digit
    is equal" and "this digit is smaller" that takes ten alternatives a digit, and not one for each number.
    """

    def terminal(pairs: Iterable[tuple[str, str]]) -> str:
        either = "|".join(f"{first} {_NUMBER} {second}" for first, second in pairs)
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
