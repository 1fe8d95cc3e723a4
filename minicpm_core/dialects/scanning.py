"""Text that arrives in pieces: a parser is a generator that waits here with `yield` until more has come."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
Wait = Generator[None, None, T]
MAX_DEPTH = 64
SIGNS = re.compile(r"""[\[\](){},"']""")
NESTED = re.compile(r"""[\[\](){}"']""")
SPACE = " \t\r\n"
LONE = re.compile("[\ud800-\udfff]")


class Problem(Exception):
    """The call cannot be read."""


class Cut(Exception):
    """The text ended inside a call."""


class Scanner:
    """Pieces of text, read once from front to back; `raw` keeps what was taken since it was last emptied."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.closed = False
        self.raw: list[str] = []

    def push(self, text: str) -> None:
        """Add a piece of text; halves of surrogate pairs, which no UTF-8 text has, are replaced."""
        self.text = self.text[self.at :] + LONE.sub("\ufffd", text)
        self.at = 0

    def take(self, count: int) -> str:
        """Return the next characters, which are there already."""
        part = self.text[self.at : self.at + count]
        self.at += len(part)
        if part:
            self.raw.append(part)
        return part

    def more(self) -> Wait[None]:
        """Wait for more text; at its end take what is left and raise Cut."""
        if self.closed:
            self.take(len(self.text) - self.at)
            raise Cut
        yield

    def peek(self) -> Wait[str]:
        """Return the next character, "" at the end."""
        while self.at >= len(self.text) and not self.closed:
            yield
        return self.text[self.at : self.at + 1]

    def starts(self, *words: str, keep: bool = False) -> Wait[str]:
        """Take (or `keep`) and return the first of the words that the text goes on with, "" for none."""
        while True:
            found = next((word for word in words if self.text.startswith(word, self.at)), "")
            left = len(self.text) - self.at
            hope = left < max(map(len, words)) and any(
                len(word) > left and len(word) > len(found) and word.startswith(self.text[self.at :]) for word in words
            )
            if self.closed or not hope:
                if not keep:
                    self.take(len(found))
                return found
            yield

    def span(self, signs: re.Pattern[str]) -> Wait[str]:
        """Take and return the characters up to the first one that does not match `signs` (a pattern of one or more)."""
        parts = []
        while True:
            match = signs.match(self.text, self.at)
            parts.append(self.take(match.end() - self.at if match else 0))
            if self.at < len(self.text) or self.closed:
                return "".join(parts)
            yield

    def skip(self) -> Wait[str]:
        """Take white space and return the character after it, "" at the end."""
        yield from self.span(_SPACES)
        return (yield from self.peek())

    def expect(self, *words: str) -> Wait[str]:
        """Take and return the one of the words that has to come next, after white space."""
        yield from self.skip()
        if found := (yield from self.starts(*words)):
            return found
        if self.closed and any(word.startswith(self.text[self.at :]) for word in words):
            yield from self.more()
        raise Problem(f"{' or '.join(map(repr, words))} expected, found {self.text[self.at : self.at + 1]!r}")

    def until(self, *ends: str, emit: Callable[[str], None] | None = None, keep: bool = False) -> Wait[tuple[str, str]]:
        """Return the text before the first of the ends, and that end; `emit` gets the text as soon as it is certain."""
        parts = []
        pattern = _either(ends)
        while True:
            match = pattern.search(self.text, self.at)
            stop = match.start() if match else len(self.text) - self.overlap(ends)
            if part := self.take(stop - self.at):
                parts.append(part)
                if emit:
                    emit(part)
            if match:
                if not keep:
                    self.take(len(match[0]))
                return "".join(parts), match[0]
            yield from self.more()

    def overlap(self, ends: tuple[str, ...]) -> int:
        """Return how many of the last characters could be the beginning of one of the ends."""
        left = len(self.text) - self.at
        for count in range(min(left, max(map(len, ends)) - 1), 0, -1):
            tail = self.text[-count:]
            if any(end.startswith(tail) for end in ends):
                return count
        return 0

    def literal(self, quotes: str, stops: str) -> Wait[str]:
        """Take and return the text of a value, up to a stop that is in no brackets and no quotes."""
        parts = []
        depth = 0
        while True:
            match = (NESTED if depth else SIGNS).search(self.text, self.at)
            parts.append(self.take((match.start() if match else len(self.text)) - self.at))
            if match is None:
                yield from self.more()
                continue
            sign = match[0]
            if sign in stops and not depth:
                return "".join(parts)
            if sign in quotes:
                quote = yield from self.starts(sign * 3, sign)
                parts.append(quote)
                if quote == sign * 3 or (yield from self.peek()) != sign:
                    parts.append((yield from self.quoted(quote)))
                else:
                    parts.append(self.take(1))
                continue
            depth += (sign in "[({") - (sign in "])}")
            if depth > MAX_DEPTH:
                raise Problem(f"values nest more than {MAX_DEPTH} deep")
            if depth < 0:
                raise Problem(f"{sign!r} closes nothing")
            parts.append(self.take(1))

    def quoted(self, quote: str) -> Wait[str]:
        """Take and return the rest of a string, with its closing quote."""
        parts = []
        while True:
            text, end = yield from self.until("\\", quote)
            parts += [text, end]
            if end == quote:
                return "".join(parts)
            if not (yield from self.peek()):
                raise Cut
            parts.append(self.take(1))

    def string(self, quote: str, decode: Callable[[str], str], emit: Callable[[str], None]) -> Wait[None]:
        """Read the rest of a string whose opening quote is taken, and emit its characters."""
        high = ""

        def send(text: str) -> None:
            nonlocal high
            before, high = high, ""
            if before and "\udc00" <= text <= "\udfff":
                emit((before + text).encode("utf-16", "surrogatepass").decode("utf-16"))
            elif "\ud800" <= text <= "\udbff":
                high = text
                emit("\ufffd" * bool(before))
            else:
                emit("\ufffd" * bool(before) + LONE.sub("\ufffd", text))

        plain = _plain(quote)
        while True:
            while match := plain.match(self.text, self.at):
                send(_ESCAPE.sub(_decode_plain, self.take(match.end() - self.at)))
            _, end = yield from self.until("\\", quote, emit=send)
            if end == quote:
                return send("")
            send(decode("\\" + (yield from self.escape())))

    def escape(self) -> Wait[str]:
        """Take and return what follows a backslash."""
        sign = yield from self.peek()
        self.take(1)
        if sign == "N":
            return sign + "".join((yield from self.until("}")))
        text = sign
        most, signs = {"x": (3, _HEX), "u": (5, _HEX), "U": (9, _HEX)}.get(sign, (3, _OCTAL))
        while sign and (sign in "xuU" or sign in _OCTAL) and len(text) < most:
            digit = yield from self.peek()
            if not digit or digit not in signs:
                break
            text += self.take(1)
        if not sign:
            raise Cut
        return text


_SPACES = re.compile(f"[{SPACE}]+")
_HEX = "0123456789abcdefABCDEF"
_OCTAL = "01234567"
# Escapes that mean the same in JSON and Python, without halves of surrogate pairs.
_ESCAPE = re.compile(r"""\\(?:u([0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})|(["\\bfnrt]))""")
_SIGNS = dict(zip('"\\bfnrt', '"\\\b\f\n\r\t', strict=True))


def _decode_plain(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _SIGNS[match[2]]


@lru_cache(maxsize=8)
def _plain(quote: str) -> re.Pattern[str]:
    return re.compile(f"(?:[^{quote[0]}\\\\]|{_ESCAPE.pattern})+")


@lru_cache(maxsize=256)
def _either(ends: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, ends)))
