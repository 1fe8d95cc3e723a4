"""All benchmarks of the CPU from one command: `python -m benchmarks`, or `make bench`; under 15 minutes on two cores.

One after the other they run in processes of their own, on one random checkpoint in MiniCPM5-1B's shape (2.2 GB in a
temporary folder). Each prints its table; at the end stand the bars, the machine and the time. `--document FILE` fills
the part of a Markdown file between the marks `<!-- benchmarks -->` and `<!-- /benchmarks -->`. The exit code is 1 where
a benchmark failed; a bar that is missed is told and is no failure. `python -m benchmarks.soak`, many callers for ten
minutes, is a command of its own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.prefix import provide_checkpoint
from benchmarks.sections import SECTIONS, Section
from benchmarks.tables import Bar, describe_machine, fill_document, format_bars
from minicpm_core.threads import wait_briefly

ROOT = Path(__file__).resolve().parent.parent


def run_section(name: str, section: Section, checkpoint: Path, temporary: Path) -> dict[str, Any]:
    """Run one benchmark; return its rows and seconds, or its "error"."""
    file = temporary / f"{name}.json"
    arguments = [part.format(checkpoint=checkpoint, file=file) for part in section.arguments]
    cache = str(temporary / "cache") if section.cached else "off"
    env = os.environ | {"MINICPM_CACHE": cache, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    env.setdefault("TOKENIZERS_PARALLELISM", "false")
    command = [sys.executable, "-m", f"benchmarks.{section.module or name}", *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    found: dict[str, Any] = {"seconds": round(time.perf_counter() - began)}
    if done.returncode:
        return found | {"error": "\n".join(done.stderr.strip().splitlines()[-8:])}
    if file.is_file():
        return found | {"rows": [json.loads(file.read_text())]}
    return found | {"rows": [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]}


def write_section(name: str, result: dict[str, Any]) -> tuple[str, list[Bar]]:
    """Return a section as Markdown, and its bars."""
    head = f"## {SECTIONS[name].title}\n\n`python -m benchmarks.{name}`, {result['seconds']} s\n\n"
    if "error" in result:
        return f"{head}It failed:\n\n```text\n{result['error']}\n```", []
    table, bars = SECTIONS[name].show(result["rows"])
    return head + table, bars


def write_report(report: dict[str, Any]) -> str:
    """Return the whole report as Markdown."""
    parts, bars = [], []
    for name, result in report["sections"].items():
        part, found = write_section(name, result)
        parts.append(part)
        bars += found
    return "\n\n".join([write_end(report, bars), *parts])


def write_end(report: dict[str, Any], bars: Sequence[Bar]) -> str:
    """Return date, command and machine, and the table of bars."""
    machine = "; ".join(f"{name} {value}" for name, value in report["machine"].items())
    load = ", ".join(f"{value:.1f}" for value in report["load"])
    missed = [bar.name for bar in bars if not bar.met]
    return (
        f"{report['date']}, `{report['command']}`, {report['seconds']} s in all. Machine: {machine}; load average "
        f"before: {load}.\n\nOf {len(bars)} bars {len(bars) - len(missed)} are met"
        f"{'; missed: ' + ', '.join(missed) if missed else ''}.\n\n{format_bars(bars)}"
    )


def link_files(folder: Path, links: Path) -> Path:
    """Return a folder with the checkpoint's files, into which benchmarks may write; copies where links cannot be.

    The links are hard ones: a symbolic link that leads out of a checkpoint's folder is refused when it is loaded.
    """
    links.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            try:
                os.link(file.resolve(), links / file.name)
            except OSError:  # another file system
                shutil.copy2(file, links / file.name)
    return links


def main() -> int:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the tables there, between its marks")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="take the figures from there; run nothing")
    parser.add_argument("--checkpoint", type=Path, help="a folder that was written before; it is kept")
    options = parser.parse_args()
    wait_briefly()
    if options.from_json:
        report = json.loads(options.from_json.read_text())
    else:
        report = run_all(options.only, options.checkpoint)
    text = write_report(report)
    if options.from_json:
        print(text)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.document:
        fill_document(options.document, text, "benchmarks")
    return int(any("error" in result for result in report["sections"].values()))


def run_all(names: Sequence[str], given: Path | None) -> dict[str, Any]:
    """Run the benchmarks, print each one's table and the bars, and return all figures."""
    began = time.perf_counter()
    arguments = [] if len(names) == len(SECTIONS) else ["--only", *names]
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "-m", "benchmarks", *arguments]),
        "machine": describe_machine(),
        "load": os.getloadavg(),
        "sections": {},
    }
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder)
        checkpoint = link_files(provide_checkpoint(given, temporary / "made"), temporary / "model")
        for name in names:
            result = run_section(name, SECTIONS[name], checkpoint, temporary)
            report["sections"][name] = result
            part, found = write_section(name, result)
            bars += found
            print(f"{part}\n", flush=True)
    report["seconds"] = round(time.perf_counter() - began)
    print(write_end(report, bars))
    return report


if __name__ == "__main__":
    sys.exit(main())
