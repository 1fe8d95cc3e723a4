"""Fuzzes every target for some seconds and prints the table of docs/security.md.

python -m tools.fuzz --seconds 300 [--target pdf] [--keep FOLDER]

Each target runs in a process of its own, so that a crash in a library's C code or an endless run is a finding too: the
example is kept, and the next round starts. New findings belong into tests/corpus/ as `found-*`, once they are mended.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

HANG = 60
"""Seconds after which an example counts as an endless run."""
BATCH = 500


def main() -> int:
    """Run; return 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "minicpm-fuzz"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    if options.child:
        print(json.dumps(fuzz(options.target[0], options.seconds, options.seed, options.keep)))
        return 0
    from tests.fuzzing.targets import TARGETS

    names = options.target or [target.name for target in TARGETS]
    print("| target | examples | read | refused | CPU s | slowest, s | peak MiB | found |")
    print("|---|---|---|---|---|---|---|---|")
    found = 0
    for name in names:
        row = _run(name, options)
        found += len(row["found"])
        ends = row["seen"]
        print(
            f"| {name} | {row['examples']:,} | {ends.get('read', 0):,} | {ends.get('refused', 0):,} "
            f"| {row['cpu']:.0f} | {row['slowest']:.2f} | {row['peak']:.0f} | {len(row['found'])} |",
            flush=True,
        )
        for signature, (count, file) in row["found"].items():
            print(f"  {count} x {signature}\n      {file}", file=sys.stderr, flush=True)
    return 1 if found else 0


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the sums of one target's processes; after a crash the rest of the time is used by a new one."""
    total: dict[str, Any] = {"examples": 0, "seen": {}, "cpu": 0.0, "slowest": 0.0, "peak": 0.0, "found": {}}
    ends, seed = time.monotonic() + options.seconds, options.seed
    while (left := ends - time.monotonic()) > 1:
        command = [sys.executable, "-m", "tools.fuzz", "--child", "--target", name, "--seed", str(seed)]
        command += ["--seconds", str(left), "--keep", str(options.keep)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        seed += 1000
        if done.returncode:
            last = options.keep / f"{name}.last"
            kept = _keep(options.keep, name, last.read_bytes()) if last.exists() else last
            where = next(
                (line.strip() for line in done.stderr.splitlines() if line.startswith("  File")), done.stderr[-300:]
            )
            total["found"][f"the process ended with {done.returncode}: {where}"] = 1, str(kept)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        total["examples"] += row["examples"]
        total["cpu"] += row["cpu"]
        total["seen"] = dict(Counter(total["seen"]) + Counter(row["seen"]))
        total["slowest"] = max(total["slowest"], row["slowest"])
        total["peak"] = max(total["peak"], row["peak"])
        total["found"] |= row["found"]
    return total


def fuzz(name: str, seconds: float, seed: int, keep: Path) -> dict[str, Any]:
    """Give a target new examples until the time has run out; return counts, and what was found by its place."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from tests.fuzzing.target import write_example
    from tests.fuzzing.targets import TARGETS

    warnings.simplefilter("ignore")
    target = next(target for target in TARGETS if target.name == name)
    seen: Counter[str] = Counter()
    found: dict[str, tuple[int, str]] = {}
    smallest: dict[str, int] = {}
    last = keep / f"{name}.last"
    count, slowest = 0, 0.0
    ends = time.monotonic() + seconds
    for _, example in target.corpus():  # imports are not what is measured
        target.check(example)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()

    def check(example: Any) -> None:
        nonlocal count, slowest
        if time.monotonic() > ends:
            return
        data = write_example(example)
        last.write_bytes(data)
        faulthandler.dump_traceback_later(HANG, exit=True)
        began = time.process_time()
        try:
            seen.update(target.check(example))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames][-3:]
            signature = f"{type(error).__name__}: {str(error)[:100]!r} at {' < '.join(reversed(places))}"
            key = f"{type(error).__name__} at {' < '.join(reversed(places))}"
            if key not in smallest or len(data) < smallest[key]:
                smallest[key] = len(data)
                found[key] = found.get(key, (0, ""))[0], f"{_keep(keep, name, data)}  {signature}"
            found[key] = found[key][0] + 1, found[key][1]
        finally:
            faulthandler.cancel_dump_traceback_later()
        count += 1
        slowest = max(slowest, time.process_time() - began)

    while time.monotonic() < ends:
        options = settings(
            max_examples=BATCH,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seeded(seed)(options(given(target.examples)(check)))()
        seed += 1
    peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, 0) / 1024
    cpu = time.process_time() - started
    return {"examples": count, "seen": dict(seen), "cpu": cpu, "slowest": slowest, "peak": peak, "found": found}


def _keep(folder: Path, name: str, data: bytes) -> Path:
    suffix = "" if data[:1] not in (b"{", b"[") else ".json"
    file = folder / f"{name}-found-{hashlib.sha256(data).hexdigest()[:8]}{suffix}"
    file.write_bytes(data)
    return file


if __name__ == "__main__":
    sys.exit(main())
