"""`minicpm index`: documents in, a report of what changed out."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict

from minicpm_app.ask import print_line
from minicpm_app.documents import locate_index, page_options, update_index, warn_of_failures


def run(options: Namespace) -> int:
    """Bring the index up to date with the paths; files that cannot be read do not stop the rest."""
    report = update_index(options.paths, options.embeddings, **locate_index(options), **page_options(options))
    if options.json:
        print_line(json.dumps(asdict(report), ensure_ascii=False))
        return 0
    parts = {
        "added": report.added,
        "updated": report.updated,
        "removed": report.removed,
        "unchanged": report.unchanged,
    }
    counts = ", ".join(f"{len(names)} {part}" for part, names in parts.items() if names or part == "added")
    pages = f" and {report.pages} pages as pictures" if report.pages else ""
    place = options.chroma_url or options.index
    print_line(f"{place}: {counts}; {report.chunks} passages{pages} in all, {report.seconds:.1f} s")
    warn_of_failures(report)
    return 0
