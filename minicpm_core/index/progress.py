"""How far a run of `build_index` is, how fast it goes and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minicpm_core.index.catalog import FileRow


@dataclass(frozen=True)
class Progress:
    """How far `build_index` is: files looked at, of how many, the one at hand, and passages embedded in this run.

    Args:
        seconds: since the run began.
        rate: passages embedded per second; 0.0 before the first.
        remaining: seconds that are left if the rest goes as fast, by the sizes of the files; None before that is known.
        page: which of `pages` of the file at hand a model looks at now, from 1; both are 0 while nothing is looked at.
    """

    done: int
    total: int
    source: str
    chunks: int
    seconds: float = field(default=0.0, compare=False)
    rate: float = field(default=0.0, compare=False)
    remaining: float | None = field(default=None, compare=False)
    page: int = 0
    pages: int = 0


class Pace:
    """Measures a run: files weigh their bytes, those that look unchanged (same size and time) nothing.

    Args:
        weights: bytes to work through, by the name of the file, in the order of the work.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.chunks = 0
        self._weights = weights
        self._total = sum(weights.values())
        self._started = self._file_started = time.perf_counter()
        self._behind = 0  # bytes of the files that are done
        self._seconds = 0.0  # spent on those that weigh something
        self._sources = list(weights)

    def at(self, done: int, share: float = 0.0) -> Progress:
        """Return the progress with `done` files behind, and `share` (0 to 1) of the next one."""
        now = time.perf_counter()
        source = self._sources[done] if done < len(self._sources) else ""
        weight = self._weights.get(source, 0)
        worked = self._behind + share * weight
        spent = self._seconds + (now - self._file_started if share else 0.0)
        left = self._total - worked
        seconds = now - self._started
        return Progress(
            done,
            len(self._sources),
            source,
            self.chunks,
            seconds=seconds,
            rate=self.chunks / seconds if seconds > 0 else 0.0,
            remaining=0.0 if left <= 0 else spent / worked * left if worked else None,
        )

    def begin_file(self) -> None:
        """Start the clock of the next file."""
        self._file_started = time.perf_counter()

    def end_file(self, source: str) -> None:
        """Count a file as done."""
        if weight := self._weights[source]:
            self._behind += weight
            self._seconds += time.perf_counter() - self._file_started


def weigh(file: Path, row: FileRow | None, splitting: str) -> int:
    """Return the bytes of a file that are to be worked through: none where it looks as its record says."""
    try:
        stat = file.stat()
    except OSError:
        return 0
    same = row is not None and (row.size, row.mtime, row.splitting) == (stat.st_size, stat.st_mtime, splitting)
    return 0 if same else max(stat.st_size, 1)
