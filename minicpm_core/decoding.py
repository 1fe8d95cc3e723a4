"""From token ids to text pieces: whole characters, stop texts cut exactly, reasoning apart from the answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

Tags = tuple[str, str]
THINK: Tags = ("<think>", "</think>")


class TokenDecoder:
    """Turns ids into text one by one; holds back until the bytes are whole characters."""

    def __init__(self, tokenizer: Any, hidden: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = frozenset(hidden)
        self._ids: list[int] = []
        self._start = 0  # what is decoded again, since some tokenizers write a token differently at the beginning
        self._shown = 0

    def push(self, token: int) -> str:
        """Return the text that `token` completes, "" while a character is cut."""
        if token in self._hidden:
            return ""
        self._ids.append(token)
        before, after = self._texts()
        if after.endswith("\ufffd") and len(self._ids) - self._shown < 8:
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        return after[len(before) :]

    def flush(self) -> str:
        """Return what was held back."""
        before, after = self._texts()
        self._start = self._shown = len(self._ids)
        return after[len(before) :]

    def _texts(self) -> tuple[str, str]:
        def decode(ids: list[int]) -> str:
            return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        return decode(self._ids[self._start : self._shown]), decode(self._ids[self._start :])


class StopTexts:
    """Ends a text where the first stop text that is complete begins; holds back only what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not isinstance(stop, str) or not stop for stop in stops):
            raise ValueError(f"stop texts are strings and must not be empty; given: {list(stops)}")
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return the part of `text` that is certainly before a stop text."""
        if self.found or not self._stops:
            return "" if self.found else text
        self._held += text
        places = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            shown, self._held = self._held[: min(places)[1]], ""
            return shown
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """Return what was held back and turned out to be no stop text."""
        shown, self._held = self._held, ""
        return shown


class MarkerSplitter:
    """Parts a text where the first of some markers begins; the rest, marker included, is another reader's."""

    def __init__(self, markers: Sequence[str]) -> None:
        self._markers = tuple(markers)
        self._held = ""
        self.found = False

    def push(self, text: str) -> tuple[str, str]:
        """Return (text before, text from the marker on) pieces that are certain; white space between is dropped."""
        if self.found or not self._markers:
            return ("", text) if self.found else (text, "")
        self._held += text
        if places := [at for marker in self._markers if (at := self._held.find(marker)) >= 0]:
            self.found = True
            shown, rest = self._held[: min(places)].rstrip(), self._held[min(places) :]
            self._held = ""
            return shown, rest
        keep = _keep_blank(self._held, max(_overlap(self._held, marker) for marker in self._markers))
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown, ""

    def flush(self) -> str:
        """Return what was held back and turned out to be no marker."""
        shown, self._held = self._held, ""
        return shown


class ReasoningSplitter:
    """Parts "<think>reasoning</think>answer"; `opened` when the prompt already ends with the (first) opening tag."""

    def __init__(self, tags: Sequence[Tags] = (THINK,), *, opened: bool = False) -> None:
        self._tags = tuple(tags)
        self.closing = tags[0][1] if tags else ""
        self._state = ("reasoning" if opened else "start") if tags else "answer"
        self._held = ""
        self._blank = True  # nothing of the present part shown yet: white space at its start is dropped

    @property
    def in_reasoning(self) -> bool:
        """Whether the next token belongs to the reasoning."""
        return self._state == "reasoning"

    def push(self, text: str) -> tuple[str, str]:
        """Return (reasoning, answer) pieces of the text so far that are certain."""
        self._held += text
        reasoning = ""
        if self._state == "start":
            begun = self._held.lstrip()
            if any(len(begun) < len(tag) and tag.startswith(begun) for tag, _ in self._tags):
                return "", ""
            found = next((tags for tags in self._tags if begun.startswith(tags[0])), None)
            if found:
                self._state, self.closing = "reasoning", found[1]
                self._held = begun[len(found[0]) :]
            else:
                self._state, self._blank = "answer", False
        if self._state == "reasoning":
            at = self._held.find(self.closing)
            if at < 0:
                keep = max(_overlap(self._held, self.closing), len(self._held) - len(self._held.rstrip()))
                return self._take(len(self._held) - _keep_blank(self._held, keep)), ""
            reasoning = self._take(at).rstrip()
            self._held, self._state, self._blank = self._held[len(self.closing) :], "answer", True
        return reasoning, self._take(len(self._held))

    def flush(self) -> tuple[str, str]:
        """Return what was held back at the end of the text."""
        if self._state == "start":
            self._blank = False  # no tag came: white space belongs to the answer
        rest = self._take(len(self._held))
        return (rest.rstrip(), "") if self.in_reasoning else ("", rest)

    def _take(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        if self._blank:
            shown = shown.lstrip()
            self._blank = not shown
        return shown


def _overlap(text: str, marker: str) -> int:
    """Return the length of the longest end of `text` that begins `marker`."""
    return next((n for n in range(min(len(text), len(marker) - 1), 0, -1) if text.endswith(marker[:n])), 0)


def _keep_blank(text: str, keep: int) -> int:
    """Return how much of the end of `text` to hold back: `keep` characters and the white space before them."""
    head = text[: len(text) - keep]
    return len(text) - len(head.rstrip())
