"""Tables that are Markdown and readable on a terminal, the bars that figures have to clear, and the machine's line."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "bitsandbytes", "langchain-core", "llama-index-core", "chromadb")


@dataclass(frozen=True)
class Bar:
    """A figure and what it has to be.

    Args:
        name: what was measured.
        measured: the figure.
        limit: what it must reach.
        at_most: the limit is the largest that is accepted, instead of the smallest.
    """

    name: str
    measured: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is good enough."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


def format_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; columns whose cells are all figures (or "-") are aligned to the right."""
    cells = [[_show(cell) for cell in row] for row in rows]
    right = [bool(cells) and all(_is_figure(row[n]) for row in rows) for n in range(len(headers))]
    widths = [max(len(line[n]) for line in [list(headers), *cells]) for n in range(len(headers))]
    rule = ["-" * (width - 1) + ":" if r else "-" * width for width, r in zip(widths, right, strict=True)]

    def write(line: Sequence[str]) -> str:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        return f"| {' | '.join(aligned)} |"

    return "\n".join([write(headers), write(rule), *(write(line) for line in cells)])


def format_bars(bars: Sequence[Bar]) -> str:
    """Return the table of bars."""
    rows = [
        (
            bar.name,
            bar.measured,
            f"{'at most' if bar.at_most else 'at least'} {bar.limit:g}",
            "yes" if bar.met else "NO",
        )
        for bar in bars
    ]
    return format_table(("bar", "measured", "wanted", "met"), rows)


def describe_machine() -> dict[str, str]:
    """Return the machine's name, cores and memory, and the versions of what is measured."""
    cpu = Path("/proc/cpuinfo")
    names = cpu.read_text().splitlines() if cpu.is_file() else []
    name = next((line.partition(":")[2].strip() for line in names if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {"cpu": name or platform.processor(), "cores": str(os.cpu_count()), "memory": f"{memory:.0f} GiB"}
    found["python"] = platform.python_version()
    return found | {
        package: version(package) for package in _PACKAGES if importlib.util.find_spec(_MODULES.get(package, package))
    }


_MODULES = {"langchain-core": "langchain_core", "llama-index-core": "llama_index"}


def _is_figure(cell: Any) -> bool:
    return cell is None or isinstance(cell, int | float)


def _show(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.3g}" if abs(cell) < 0.1 else f"{cell:.2f}"
    return str(cell)


def fill_document(document: Path, report: str, name: str) -> None:
    """Put the report between the document's marks of this name; what stands around them is kept.

    Raises:
        ValueError: the marks are not there.
    """
    marks = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = document.read_text(encoding="utf-8")
    before, first, rest = text.partition(marks[0])
    _, last, after = rest.partition(marks[1])
    if not first or not last:
        raise ValueError(f"{document} has no lines {marks[0]} and {marks[1]}, between which the report would stand")
    document.write_text(f"{before}{first}\n\n{report}\n\n{last}{after}", encoding="utf-8")
