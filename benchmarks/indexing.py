"""What indexing costs as the index grows: memory, time and disk, page by page, and what a second run costs.

Run it as `python -m benchmarks.indexing [--pages 10000] [--embeddings demo]`; it writes PDFs of 25 pages to a temporary
folder, indexes them in a process of its own, and prints the curve; with `--json` one line per point. Without
`--embeddings` texts are hashed into 384 numbers, so that what is measured is the index and not a model. Where other
programs run too, set OMP_NUM_THREADS=1 and read the processor's time.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.tables import Bar, format_bars, format_table

PAGES_PER_FILE = 25
SENTENCES_PER_PAGE = 20
DIMENSION = 384
POINTS = 10
MOST_GROWTH = 20.0
"""MiB of memory per 1000 pages after the first tenth: vectors and graph of what is stored, and no texts."""
WORDS = (
    "lamp kettle contract tenant deposit rent month warranty battery charger window heating repair garden report "
    "office meeting budget invoice customer delivery return parcel weight price number street winter summer machine "
    "filter oil pressure valve pump motor cable switch sensor limit value table chapter section rule member permit fee"
).split()


class HashEmbedder:
    """Words hashed into numbers, as fast as an embedder can be."""

    name = "hash"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text."""
        vector = [0.01] * DIMENSION
        for word in text.lower().split():
            vector[zlib.crc32(word.encode()) % DIMENSION] += 1.0
        return vector


def write_documents(folder: Path, pages: int) -> None:
    """Write PDFs with so many pages together, every one of other text."""
    from fpdf import FPDF

    rng = random.Random(0)
    for first in range(0, pages, PAGES_PER_FILE):
        document = FPDF()
        document.set_font("Helvetica", size=9)
        for _ in range(first, min(first + PAGES_PER_FILE, pages)):
            document.add_page()
            for line in range(SENTENCES_PER_PAGE):
                text = f"{' '.join(rng.choices(WORDS, k=15)).capitalize()} {rng.randint(1, 99999)}."
                document.text(10, 20 + 8 * line, text)
        document.output(str(folder / f"document{first // PAGES_PER_FILE:05}.pdf"))


def memory() -> dict[str, float]:
    """Return the resident memory of this process in MiB, now and at its highest."""
    values = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(values[key].split()[0]) / 1024 for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))}


def measure(docs: Path, store: Path, pages: int, embeddings: str | None) -> Iterator[dict[str, Any]]:
    """Index in this process; yield a point of the curve at times, then the second run, a changed file and searches."""
    from minicpm_core.index import Index, Progress, build_index

    embedder: Any = embeddings or HashEmbedder()
    points: list[dict[str, Any]] = []

    def note(progress: Progress) -> None:
        due = progress.total * (len(points) + 1) / POINTS
        if progress.done >= due:
            done = min(progress.done * PAGES_PER_FILE, pages)
            point = {"pages": done, "passages": progress.chunks, "seconds": time.perf_counter() - wall}
            point |= {"cpu": time.process_time() - cpu, "disk": size(store)}
            points.append(point | memory())

    def run(name: str) -> dict[str, Any]:
        started = time.perf_counter(), time.process_time()
        report = build_index(docs, persist_directory=store, embeddings=embedder)
        assert not report.failed
        return {
            "run": name, "seconds": time.perf_counter() - started[0], "cpu": time.process_time() - started[1],
            "changed": len(report.added) + len(report.updated), **memory(),
        }  # fmt: skip

    wall, cpu = time.perf_counter(), time.process_time()
    build_index(docs, persist_directory=store, embeddings=embedder, on_progress=note)
    yield from points
    yield run("nothing changed")
    sorted(docs.iterdir())[0].unlink()
    yield run("a file deleted")
    with Index.open(store, embedder) as index:
        times = []
        for n in range(20):
            started = time.process_time()
            assert len(index.search(f"the {WORDS[n]} and the {WORDS[-n - 1]}", k=4)) == 4
            times.append(time.process_time() - started)
        yield {"run": "search", "seconds": sorted(times)[10], "cpu": sorted(times)[10], "changed": 0, **memory()}


def size(folder: Path) -> float:
    """Return the size of all files in MiB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def show(rows: list[dict[str, Any]]) -> tuple[str, list[Bar]]:
    """Return the curve and the runs behind it as tables, and the bar on the growth of memory."""
    points = [row for row in rows if "pages" in row]
    curve = format_table(
        ("pages", "passages", "CPU s", "pages/CPU s", "memory MiB", "peak MiB", "disk MiB"),
        [(p["pages"], p["passages"], p["cpu"], p["pages"] / p["cpu"], p["rss"], p["peak"], p["disk"]) for p in points],
    )
    runs = format_table(
        ("then", "CPU s", "memory MiB"),
        [(row["run"], row["cpu"], row["rss"]) for row in rows if "run" in row],
    )
    first, last = points[0], points[-1]
    growth = (last["peak"] - first["peak"]) / max(last["pages"] - first["pages"], 1) * 1000
    return f"{curve}\n\n{runs}", [Bar("growth of peak memory per 1000 pages (MiB)", growth, MOST_GROWTH, at_most=True)]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--embeddings", help="a name as of build_index; default: hashed words")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        docs, store = map(Path, options.child)
        for row in measure(docs, store, options.pages, options.embeddings):
            print(json.dumps(row), flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        docs, store = Path(name) / "docs", Path(name) / "index"
        docs.mkdir()
        write_documents(docs, options.pages)
        command = [sys.executable, "-m", "benchmarks.indexing", "--pages", str(options.pages)]
        command += ["--embeddings", options.embeddings] if options.embeddings else []
        done = subprocess.run(
            [*command, "--child", str(docs), str(store)], stdout=subprocess.PIPE, text=True, check=True
        )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    if options.json:
        print(done.stdout, end="")
        return
    table, bars = show(rows)
    print(f"{table}\n\n{format_bars(bars)}")


if __name__ == "__main__":
    main()
