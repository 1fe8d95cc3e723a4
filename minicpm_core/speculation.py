"""Guesses an answer's next tokens from where its last ones stood before, so that the model reads several at once."""

from __future__ import annotations

from collections.abc import Sequence

_MATCH = 3
"""Tokens that must have stood together before; fewer agree by chance too often."""
_SHORTEST, _LONGEST = 4, 16


class Lookup:
    """Prompt-lookup decoding (Saxena 2023): an answer that copies goes on as its source does.

    Drafts grow while they are right, and cease for twice as many steps each time that one is mostly wrong.
    """

    def __init__(self) -> None:
        self._behind: dict[tuple[int, ...], int] = {}  # where the text goes on behind tokens that stood together
        self._read = 0
        self._length = _SHORTEST
        self._failures = self._pause = 0

    def draft(self, ids: Sequence[int], most: int) -> list[int]:
        """Return the tokens that may follow `ids`, at most `most`; none where nothing is known, or it does not pay.

        Args:
            ids: prompt and answer so far; the same as in the last call, and more.
            most: longest draft.
        """
        for end in range(max(self._read, _MATCH), len(ids)):
            self._behind[tuple(ids[end - _MATCH : end])] = end
        self._read = len(ids)
        if self._pause:
            self._pause -= 1
            return []
        start = self._behind.get(tuple(ids[-_MATCH:]))
        if start is None:
            return []
        period = len(ids) - start  # what repeats itself goes on doing so
        return [ids[start + n % period] for n in range(min(self._length, most))]

    def judge(self, drafted: int, right: int) -> None:
        """Learn from a draft of which the first `right` tokens were what the model chose."""
        if 2 * right < drafted:
            self._failures += 1
            self._pause, self._length = 2**self._failures, _SHORTEST
        elif drafted:
            self._failures = 0
            self._length = min(2 * self._length, _LONGEST) if right == drafted else max(right, _SHORTEST)
