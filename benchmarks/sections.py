"""What `python -m benchmarks` runs: each benchmark's command, and how its JSON lines become a table with bars."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import batch, prefix, rag_memory, vision
from benchmarks.tables import Bar, format_table

Rows = list[dict[str, Any]]
Shown = tuple[str, list[Bar]]


@dataclass(frozen=True)
class Section:
    """A benchmark.

    Args:
        title: what it measures.
        arguments: of `python -m benchmarks.NAME`; {checkpoint} is the folder of a random checkpoint of 1B parameters,
            {file} a file that the benchmark may write its JSON to.
        show: makes the table and the bars of the JSON lines.
        module: where it is not NAME.
        cached: int4 copies on disk are used, as they are by default.
    """

    title: str
    arguments: tuple[str, ...]
    show: Callable[[Rows], Shown]
    module: str = ""
    cached: bool = False


def show_loading(rows: Rows) -> Shown:
    """Show peak memory while loading; the bar is the finished model and one tensor's working set."""
    first, *ways = rows
    cells, bars = [], []
    for row in ways:
        name = row.get("quantization") or row["dtype"]
        mib = [row[key] / 2**20 for key in ("model_bytes", "own_memory_after", "own_memory_peak")]
        cells.append([name, row["seconds"], *mib])
        if name == "int4":
            bars.append(
                Bar(
                    "int4: peak of loading above model and largest tensor, MiB",
                    mib[2] - mib[0] - first["largest_tensor"] / 2**20,
                    64,
                    True,
                )
            )
    return format_table(("weights", "seconds", "model MiB", "own memory after MiB", "own peak MiB"), cells), bars


def show_int4(rows: Rows) -> Shown:
    """Show int4 against stock bitsandbytes."""
    from benchmarks.int4 import BARS

    cells, bars = [], []
    for row in rows:
        threads = row["threads"]
        for name, pairs in row["seconds"].items():
            stock, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(slow / fast for slow, fast in pairs)
            cells.append([threads, name, stock, ours, ratio])
            least = 6.0 if name == "first token" and threads == 1 else BARS[name]
            bars.append(Bar(f"{name}, {threads} thread{'s' if threads > 1 else ''}", ratio, least))
    return format_table(("threads", "", "stock s", "ours s", "times"), cells), bars


def show_memory(rows: Rows) -> Shown:
    """Show planned memory against the measured peak."""
    cells, bars = [], []
    for row in rows:
        planned, peak = row["planned"] / 2**30, row["peak"] / 2**30
        cells.append([row["case"], row["prompt_tokens"], row["prefill_chunk"], planned, peak, planned / peak])
        bars.append(Bar(f"plan off by, {row['case']}", abs(planned / peak - 1), 0.1, at_most=True))
    return format_table(("case", "prompt", "chunk", "planned GiB", "peak GiB", "plan / peak"), cells), bars


def show_tools(rows: Rows) -> Shown:
    """Show tool calls under a grammar and without."""
    cells, bars = [], []
    columns = (
        "case",
        "way",
        "answers",
        "refused",
        "called",
        "valid",
        "tokens",
        "steps",
        "ms_per_token",
        "ms_beside_model",
    )
    for name, found in rows[0]["checkpoints"].items():
        cells += [[name, *(row[column] for column in columns)] for row in found["rows"]]
        ours = [row for row in found["rows"] if row["way"] == "grammar"]
        called = sum(row["called"] for row in ours)
        bars.append(
            Bar(f"valid calls under the grammar, {name}", sum(row["valid"] for row in ours) / max(called, 1), 1.0)
        )
    headers = ("checkpoint", "case", "way", "answers", "refused", "called", "valid", "tokens", "steps", "ms/token")
    return format_table((*headers, "beside model"), cells), bars


MEMORY_CASES = ("MiniCPM5-1B, bf16", "MiniCPM5-1B, int4", "MiniCPM-1B, int4", "MiniCPM-V 4.0, 4 layers, int4")
SECTIONS: dict[str, Section] = {
    "loading_memory": Section(
        "Memory while loading", ("--checkpoint", "{checkpoint}"), show_loading, module="loading_memory"
    ),
    "int4": Section(
        "int4 against stock bitsandbytes (transformers with a BitsAndBytesConfig)",
        ("--json", "--rounds", "1", "--folder", "{checkpoint}"),
        show_int4,
        cached=True,
    ),
    "prefix": Section(
        "Follow-up questions and copied answers",
        ("--json", "--int4", "--checkpoint", "{checkpoint}"),
        prefix.show,
    ),
    "vision": Section(
        "A second question about a picture, towers at real size", ("--json", "--rounds", "2"), vision.show
    ),
    "batch": Section(
        "`batch` of eight prompts against a loop",
        ("--json", "--rounds", "2", "--checkpoint", "{checkpoint}"),
        batch.show,
    ),
    "rag_memory": Section(
        "The whole RAG pipeline under 4 GiB", ("--json", "--checkpoint", "{checkpoint}"), rag_memory.show
    ),
    "memory": Section(
        "Planned memory against the measured peak of a process",
        ("--json", "--checkpoint", "{checkpoint}", "--cases", *MEMORY_CASES),
        show_memory,
    ),
    "tools": Section(
        "Tool calls: valid ones, and what the grammar costs",
        ("--seeds", "0", "--max-tokens", "96", "--json", "{file}"),
        show_tools,
    ),
}
