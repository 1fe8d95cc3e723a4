"""`minicpm merge-adapter`: a checkpoint and a LoRA adapter in, a checkpoint out."""

from __future__ import annotations

import json
from argparse import Namespace

from minicpm_app.ask import print_line


def run(options: Namespace) -> int:
    """Write the merged checkpoint and say where it is."""
    from minicpm_core import merge_adapter

    folder = merge_adapter(options.model, options.adapter, options.out, family=options.family)
    print_line(json.dumps({"folder": str(folder)}, ensure_ascii=False) if options.json else f"written: {folder}")
    return 0
