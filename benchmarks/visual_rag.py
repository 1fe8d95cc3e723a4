"""How much the rank of a page that is stored as a picture should count beside passages of text.

Run it as `python -m benchmarks.visual_rag`; `--document docs/visual_rag.md` writes the table between the marks of that
file. The English documents of `benchmarks/rag_set` are indexed twice: every second one as a scan (printed pages without
a text layer), the others as texts; then the other way round. So each question is asked once where a page answers it and
once where a passage does, beside pages and passages that do not. A page is right where the words that answer begin on
it. Embeddings are the demo's, for the texts a small English model, for the pages the shapes of printed words: what is
measured is how the two lists are joined, not how well a picture model of your own finds pages.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.rag import SET
from benchmarks.tables import fill_document, format_table
from minicpm_core.index import Index, build_index, picture_search
from minicpm_core.rag import Passage, RagSettings
from minicpm_core.rag_evaluation import DEPTH, Question, read_questions
from tests.scanned import write_scan

WEIGHTS = (0.8, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8)
SHOWN = RagSettings().k
"""Passages and pages that a prompt holds."""
LINE, LINES = 46, 13
"""Characters of a printed line, and lines of a page."""
Pages = dict[str, list[str]]
"""The text that is printed on each page of a scan, by the scan's name."""


def write_half(folder: Path, half: int) -> Pages:
    """Write the English documents, every second one as a scan, and return what the scans show."""
    folder.mkdir()
    shown: Pages = {}
    documents = sorted(file for file in (SET / "documents").iterdir() if file.name.isascii())
    for n, file in enumerate(documents):
        text = file.read_text(encoding="utf-8")
        if n % 2 == half:
            (folder / file.name).write_text(text, encoding="utf-8")
            continue
        lines = [line for part in text.splitlines() for line in textwrap.wrap(part.strip("# "), LINE)]
        pages = [lines[start : start + LINES] for start in range(0, len(lines), LINES)]
        write_scan(folder / f"{file.stem}.pdf", *pages)
        shown[f"{file.stem}.pdf"] = [" ".join(page) for page in pages]
    return shown


def find_rank(question: Question, found: Sequence[Passage], shown: Pages) -> int | None:
    """Return the place, from 1, of the page or passage that answers; None where it is not among those found."""
    scan = f"{Path(str(question.source)).stem}.pdf"
    if scan not in shown:
        return next((n for n, passage in enumerate(found, start=1) if question.is_right(passage)), None)
    start = " ".join(shown[scan]).lower().index(question.passage.lower())
    page = next(n for n in range(len(shown[scan])) if start < len(" ".join(shown[scan][: n + 1])) + 1) + 1
    return next((n for n, one in enumerate(found, start=1) if (one.source, one.page) == (scan, page)), None)


def measure(weights: Sequence[float]) -> Iterator[tuple[float, dict[str, list[int | None]]]]:
    """Yield, for each weight, the ranks of what answers: the questions on scans, and those on texts."""
    questions = [q for q in read_questions(SET / "questions.jsonl") if q.source and q.source.isascii()]
    ranks: dict[float, dict[str, list[int | None]]] = {weight: {"scan": [], "text": []} for weight in weights}
    with tempfile.TemporaryDirectory() as temporary:
        for half in (0, 1):
            folder, store = Path(temporary) / f"documents{half}", Path(temporary) / f"index{half}"
            shown = write_half(folder, half)
            build_index(folder, persist_directory=store, embeddings="demo", pages="auto", page_embeddings="demo")
            with Index.open(store) as index:
                for weight in weights:
                    with patch.object(picture_search, "WEIGHT", weight):
                        for question in questions:
                            kind = "scan" if f"{Path(str(question.source)).stem}.pdf" in shown else "text"
                            found = index.search(question.question, DEPTH)
                            ranks[weight][kind].append(find_rank(question, found, shown))
    yield from ranks.items()


def figures(ranks: Sequence[int | None]) -> dict[str, float]:
    """Return the shares of questions with the right one at the first place and in the prompt, and the MRR."""
    count = len(ranks)
    hits = {f"hit@{k}": sum(rank is not None and rank <= k for rank in ranks) / count for k in (1, SHOWN)}
    return hits | {"MRR": sum(1 / rank for rank in ranks if rank) / count}


def show(rows: Sequence[tuple[float, dict[str, list[int | None]]]]) -> str:
    """Return the table."""
    cells: list[list[Any]] = []
    for weight, ranks in rows:
        kinds = [figures(found) for found in (ranks["scan"], ranks["text"], [*ranks["scan"], *ranks["text"]])]
        cells.append([f"{weight:g}", *(f"{value:.2f}" for kind in kinds for value in kind.values())])
    names = [f"{name}, {kind}" for kind in ("scans", "texts", "all") for name in ("hit@1", f"hit@{SHOWN}", "MRR")]
    return format_table(("weight", *names), cells)


def main() -> None:
    """Measure and print, or write into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", type=float, default=list(WEIGHTS))
    parser.add_argument("--document", type=Path, help="writes the table between the marks of this file")
    parser.add_argument("--json", action="store_true", help="prints the ranks")
    options = parser.parse_args()
    rows = list(measure(options.weights))
    if options.json:
        print(json.dumps(dict(rows)))
        return
    asked = len(rows[0][1]["scan"])
    text = f"`python -m benchmarks.visual_rag`, {asked} questions on scans and the same on texts:\n\n{show(rows)}"
    if options.document is None:
        print(text)
        return
    fill_document(options.document, text, "benchmarks.visual_rag")


if __name__ == "__main__":
    main()
