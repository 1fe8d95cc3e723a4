"""Write the README's table of families from the family table: `python -m tools.family_table`."""

from __future__ import annotations

from pathlib import Path

from minicpm_core.families import FAMILIES, UNSUPPORTED
from minicpm_core.retrieval_families import EMBEDDERS, RERANKERS

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- families: python -m tools.family_table -->\n", "<!-- /families -->"


def make_table() -> str:
    """Return the Markdown table: a row per family and retrieval model, then the kinds that are refused and why."""
    head = ("family", "checkpoints", "runs as (transformers)", "pictures", "thinking", "tool calls")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in FAMILIES:
        marks = ["yes" if has else "-" for has in (row.vision is not None, row.thinking)]
        marks.append(row.dialect.name)
        lines.append(f"| `{row.name}` | {row.covers} | `{row.model_class}` | {' | '.join(marks)} |")
    for kind, rows in (("embeddings", EMBEDDERS), ("reranking", RERANKERS)):
        lines += [f"| `{row.name}` | {row.covers} | {kind}: the base model's class | - | - | - |" for row in rows]
    lines += [f"| - | {kind.covers} | refused: {kind.reason.split(';')[0]} | - | - | - |" for kind in UNSUPPORTED]
    return "\n".join(lines) + "\n"


def replace_table(text: str) -> str:
    """Return the README's text with the table made anew."""
    before, rest = text.split(START)
    return before + START + make_table() + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    README.write_text(replace_table(README.read_text(encoding="utf-8")), encoding="utf-8")
