"""Control tokens count where a chat template writes them; where messages spell them, they are text like any other."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minicpm_core.types import Message

if TYPE_CHECKING:
    from minicpm_core.families import Family

_NUMERALS = [chr(number) for number in (*range(0x10107, 0x10134), *range(0x12400, 0x1246F))]
"""Aegean and cuneiform: tokenizers keep numerals apart from letters and signs, templates print them as they are."""
_MARKER = re.compile(r"<[^\s<>\"'{}%=]+>")
"""A marker in a chat template's source."""
_TAG = re.compile(r"<[^<>\s=]+>?")
"""A tag in a written call, up to its first attribute."""
_UNRENDERED = ("role", "status", "tool_calls")

Offsets = list[tuple[int, int]]
"""[start, end) in characters of the text, per token."""


def find_markers(family: Family) -> set[str]:
    """Return what a family writes around calls, results and reasoning."""
    written = family.dialect.write_calls([("f", {"x": "y"})]) + family.dialect.write_result("f", "y")
    return {*_TAG.findall(written), *(tag for tags in family.tags for tag in tags)}


def refuse_half_characters(value: Any) -> None:
    """Raise ValueError where a text, or dicts and lists of texts, hold half of a surrogate pair."""
    if isinstance(value, (Mapping, list, tuple)):
        for part in (*value.keys(), *value.values()) if isinstance(value, Mapping) else value:
            refuse_half_characters(part)
    elif isinstance(value, str):
        _refuse_half_characters(value)


def _refuse_half_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds {text[error.start]!r}, half of a character cut in two, at {error.start} of {len(text)}; "
            'leave it out, as with text.encode(errors="ignore").decode()'
        ) from None


class ControlTokens:
    """The names that steer a model, and how a text that spells them is encoded.

    A name in a message gets a seam inside, so that neither the tokenizer nor the chat template finds it; the seam's own
    tokens are left out of the ids. What holds no name is encoded as ever.

    Args:
        tokenizer: a fast tokenizer of transformers; its added tokens are names if special or without white space.
        template: the chat template's source; what stands in it as `<...>` is a marker.
        markers: further texts that mean something to the model, such as the opening of a call.
        thoughts: opening and closing tags of reasoning, which an assistant's message may begin with.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str = "",
        markers: Iterable[str] = (),
        thoughts: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self.seam = "".join(
            secrets.choice(_NUMERALS) for _ in range(2)
        )  # no text knows it; short, for texts full of names
        added = tokenizer.added_tokens_decoder.values()
        names = {token.content for token in added if token.special or not re.search(r"\s", token.content)}
        plain = {*_MARKER.findall(template), *markers} - names
        heads = [(name[:1], name[1:]) for name in names if len(name) > 1]
        heads += [self._part(name) for name in plain if len(name) > 1]
        self.names = tuple(sorted(name for name in names | plain if len(name) > 1))
        self._pattern = _compile(heads)
        self._thoughts = [
            re.compile(rf"(\s*{re.escape(first)})(.*?)({re.escape(last)})(.*)", re.DOTALL) for first, last in thoughts
        ]

    def cut(self, value: Any) -> Any:
        """Return a text, or dicts and lists of texts, with a seam in every name."""
        if isinstance(value, str):
            return self._pattern.sub(lambda match: match[0] + self.seam, value)
        if isinstance(value, Mapping):
            return {self.cut(key): self.cut(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.cut(part) for part in value]
        return value

    def cut_message(self, message: Message) -> Message:
        """Return a message with seams in its texts, but for its calls and the tags of reasoning it begins with."""
        made = {key: value if key in _UNRENDERED else self.cut(value) for key, value in message.items()}
        content = message.get("content")
        if message["role"] == "assistant" and isinstance(content, str):
            for thought in self._thoughts:
                if found := thought.fullmatch(content):
                    made["content"] = found[1] + self.cut(found[2]) + found[3] + self.cut(found[4])
        return made

    def join(self, text: str) -> str:
        """Return the text without seams."""
        return text.replace(self.seam, "")

    def encode(self, text: str, *, offsets: bool = False) -> tuple[list[int], Offsets]:
        """Return the token ids of a text with seams, and with `offsets` their places in it.

        Nothing is added to the ids. The caller keeps other threads from the tokenizer.
        """
        refuse_half_characters(text)
        cut = self.seam in text
        if not cut and not offsets:
            return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False)), []
        ids, places = self._encode(text)
        if not cut:
            return ids, places
        seams = bytearray(len(text))
        for match in re.finditer(self.seam, text):
            seams[match.start() : match.end()] = b"\1" * len(self.seam)
        kept: list[tuple[int, tuple[int, int]]] = []
        for token, (start, end) in zip(ids, places, strict=True):
            inside = start < end and seams.count(1, start, end)
            if inside and inside < end - start:
                return self._encode_apart(text)
            if not inside:
                kept.append((token, (start, end)))
        return [token for token, _ in kept], [place for _, place in kept]

    def _encode(self, text: str) -> tuple[list[int], Offsets]:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return list(encoded["input_ids"]), [(start, end) for start, end in encoded["offset_mapping"]]

    def _encode_apart(self, text: str) -> tuple[list[int], Offsets]:
        """Encode what is between seams part by part: for tokenizers that would join a seam with its neighbours.

        One that puts a space before a text puts it before each part.
        """
        ids: list[int] = []
        places: Offsets = []
        at = 0
        for part in text.split(self.seam):
            found, where = self._encode(part)
            ids += found
            places += [(at + start, at + end) for start, end in where]
            at += len(part) + len(self.seam)
        return ids, places

    def _part(self, name: str) -> tuple[str, str]:
        """Return a marker in two parts which give other tokens than the whole, where there are such."""
        whole = self._encode(name)[0]
        for place in range(1, len(name)):
            if self.encode(name[:place] + self.seam + name[place:])[0] != whole:
                return name[:place], name[place:]
        return name[:1], name[1:]


def _compile(heads: Sequence[tuple[str, str]]) -> re.Pattern[str]:
    """Return the pattern of the first parts, each where the second follows; the shortest comes first."""
    rests: dict[str, set[str]] = {}
    for head, rest in heads:
        rests.setdefault(head, set()).add(rest)
    parts = [f"{re.escape(head)}(?={'|'.join(map(re.escape, sorted(rests[head])))})" for head in sorted(rests, key=len)]
    return re.compile("|".join(parts) or "(?!)")
