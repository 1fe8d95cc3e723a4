"""`minicpm doctor --index`: checks an index, and mends it."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict

from minicpm_app.ask import print_line


def run(options: Namespace) -> int:
    """Print what is wrong with the index, after mending it where that is asked for; 1 where damage is left."""
    from minicpm_core.index.check import check_index
    from minicpm_core.index.repair import repair_index

    work = repair_index if options.repair else check_index
    health = work(options.index, options.embeddings)
    if options.json:
        facts = asdict(health) | {"directory": str(health.directory), "is_sound": health.is_sound}
        for finding in facts["findings"]:
            finding |= {"ids": len(finding["ids"])}
        print_line(json.dumps(facts, ensure_ascii=False))
        return int(not health.is_sound)
    print_line(
        f"{health.directory}: {health.passages} passages of {health.files} files, embeddings {health.embeddings}"
    )
    for repair in health.repairs:
        print_line(f"  mended: {repair}")
    for finding in health.findings:
        how = f" (--repair: {finding.mended})" if finding.mended else ""
        print_line(f"  {finding.part}, {finding.kind}: {finding.text}{how}")
    changed = any(finding.kind == "files" for finding in health.findings)
    again = " Index the documents again to bring it up to date." if changed else ""
    print_line(f"{'The index is sound.' if health.is_sound else 'The index is damaged.'}{again}")
    return int(not health.is_sound)
