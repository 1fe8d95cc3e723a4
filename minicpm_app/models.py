"""`minicpm models`: the table of families."""

from __future__ import annotations

import json
from argparse import Namespace

from minicpm_app.ask import print_line


def run(options: Namespace) -> int:
    """Print a row per family: its name, the checkpoints it covers, the class that runs it."""
    from minicpm_core.families import FAMILIES
    from minicpm_core.retrieval_families import EMBEDDERS, RERANKERS

    rows = [
        {"family": f.name, "covers": f.covers, "thinking": f.thinking, "pictures": f.vision is not None}
        for f in FAMILIES
    ]
    rows += [
        {"family": r.name, "covers": r.covers, "thinking": False, "pictures": False} for r in (*EMBEDDERS, *RERANKERS)
    ]
    if options.json:
        print_line(json.dumps(rows, ensure_ascii=False))
        return 0
    width = max(len(str(row["family"])) for row in rows)
    for row in rows:
        print_line(f"{row['family']:<{width}}  {row['covers']}")
    return 0
