"""`minicpm cache`: the int4 copies that later loads start from."""

from __future__ import annotations

import json
from argparse import Namespace

from minicpm_app.ask import print_line


def run(options: Namespace) -> int:
    """List the copies, or delete them and say how much was freed."""
    from minicpm_core.int4.cache import cache_folder, clear, entries
    from minicpm_core.sizes import gib

    folder = str(cache_folder() or "off")
    if options.clear:
        freed = clear()
        print_line(json.dumps({"folder": folder, "freed": freed}) if options.json else f"{folder}: {gib(freed)} freed")
        return 0
    found = entries()
    if options.json:
        rows = [{"model": entry.model, "file": str(entry.file), "bytes": entry.size} for entry in found]
        print_line(json.dumps({"folder": folder, "copies": rows}, ensure_ascii=False))
        return 0
    for entry in found:
        print_line(f"{gib(entry.size):>9}  {entry.model}")
    print_line(f"{gib(sum(entry.size for entry in found)):>9}  in {folder}")
    return 0
