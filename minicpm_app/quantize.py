"""`minicpm quantize`: a checkpoint in, a copy in int4 that stock transformers opens out."""

from __future__ import annotations

import json
from argparse import Namespace

from minicpm_app.ask import print_line


def run(options: Namespace) -> int:
    """Write the copy and say where it is."""
    from minicpm_core import quantize

    folder = quantize(options.model, options.out, family=options.family)
    print_line(json.dumps({"folder": str(folder)}, ensure_ascii=False) if options.json else f"written: {folder}")
    return 0
