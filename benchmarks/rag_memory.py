"""The whole RAG pipeline in less than 4 GiB: index, embeddings, Chroma, a model of 1B parameters, 2,000 tokens to read.

Run it as `python -m benchmarks.rag_memory`; it writes a random checkpoint in MiniCPM5-1B's shape to a temporary folder
(2.2 GB) and runs each way in a process of its own, on which the operating system enforces the limit (see
`benchmarks.limits`). The last ways show that the limit bites: the same pipeline with weights of 32 bits, and int4 as
transformers loads it (`BitsAndBytesConfig`). Linux only; `--json` prints a line per way. The weights are random: what
the answer says means nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.limits import enforce_limit, leave_groups, peak
from benchmarks.prefix import provide_checkpoint
from benchmarks.tables import Bar, format_bars, format_table

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("examples/documents", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs")
QUESTION = "What is refused when a model does not fit into the memory?"
ANSWER, WINDOW = 48, 2048
"""Tokens of the answer, and of prompt and answer together: 2,000 are the prompt's, filled with passages."""
LIMIT = 4 * 2**30
BESIDE = 2**29
"""Bytes of the limit that are left to embeddings, Chroma and the index, of which the model's plan does not know."""
WAYS: dict[str, dict[str, Any]] = {
    "LangChain, int4, first load": {"framework": "langchain", "quantization": "int4"},
    "LangChain, int4, second load": {"framework": "langchain", "quantization": "int4"},
    "LlamaIndex, int4, second load": {"framework": "llamaindex", "quantization": "int4"},
    "LangChain, 32 bits": {"framework": "langchain", "quantization": "none", "dtype": "float32"},
    "LangChain, int4 of transformers": {"framework": "stock"},
}
_REFUSED = ("DefaultCPUAllocator", "MemoryError", "bad_alloc", "Cannot allocate memory")
MUST_FIT = 3
"""So many of the ways, from the first one on, have to stay within the limit."""


def answer(folder: str, way: dict[str, Any], index: str, limit: int) -> dict[str, Any]:
    """Run the pipeline once in this process under the limit; return seconds, bytes and tokens."""
    enforced = enforce_limit(limit)
    from minicpm_core.threads import wait_briefly

    wait_briefly()
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return round(clock[-1] - clock[-2], 1)

    from minicpm_core.rag import RagSettings

    settings = RagSettings(chunk_size=96, chunk_overlap=0, k=48)
    documents = [str(ROOT / name) for name in DOCUMENTS if (ROOT / name).exists()]
    options = {name: value for name, value in way.items() if name != "framework"}
    options |= {"model": folder, "context_window": WINDOW, "max_tokens": ANSWER, "temperature": 0.0, "device": "cpu"}
    if options.get("quantization") == "int4":
        options["memory_limit"] = limit - BESIDE
    run = _ask_llamaindex if way["framework"] == "llamaindex" else _ask_langchain
    seconds: dict[str, float] = {}
    counts: dict[str, Any] = {}
    for step, found in run(documents, index, settings, options, stock=way["framework"] == "stock"):
        seconds[step] = lap()
        counts |= found
    return {"enforced": enforced, "peak": peak(), "seconds": seconds, **counts}


def _ask_langchain(documents: list[str], index: str, settings: Any, options: dict[str, Any], *, stock: bool) -> Any:
    from langchain_core.callbacks import UsageMetadataCallbackHandler

    from langchain_minicpm import ChatMiniCPM, build_index, create_rag_chain, load_index

    report = build_index(documents, persist_directory=index, embeddings="demo", settings=settings)
    yield "index", {}
    chat = _load_stock(options["model"]) if stock else ChatMiniCPM(**options)
    if not stock:
        chat.load_engine()
    yield "load", {}
    usage = UsageMetadataCallbackHandler()
    result = create_rag_chain(chat, load_index(index)).invoke(QUESTION, config={"callbacks": [usage]})
    counted = next(iter(usage.usage_metadata.values()), {})
    tokens = {"prompt_tokens": counted.get("input_tokens"), "answer_tokens": counted.get("output_tokens")}
    yield "answer", {"passages": report.chunks, "shown": len(result["context"]), **tokens}


def _ask_llamaindex(documents: list[str], index: str, settings: Any, options: dict[str, Any], *, stock: bool) -> Any:
    from llamaindex_minicpm import MiniCPM, build_index, create_query_engine, load_index

    report = build_index(documents, persist_directory=index, embeddings="demo", settings=settings)
    yield "index", {}
    llm = MiniCPM(**options)
    engine = llm.load_engine()
    yield "load", {}
    read: list[int] = []
    engine.model.register_forward_pre_hook(
        lambda _, __, inputs: read.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    response = create_query_engine(load_index(index), llm).query(QUESTION)
    tokens = {"prompt_tokens": sum(n for n in read if n > 1), "answer_tokens": read.count(1) + 1}
    yield "answer", {"passages": report.chunks, "shown": len(response.source_nodes), **tokens}


def _load_stock(folder: str) -> Any:
    """Return LangChain's own class over int4 as transformers' documentation shows it."""
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from transformers import AutoTokenizer, pipeline

    from benchmarks.int4 import load_stock

    model, tokenizer = load_stock(Path(folder)), AutoTokenizer.from_pretrained(folder)
    made = pipeline("text-generation", model=model, tokenizer=tokenizer, max_new_tokens=1, return_full_text=False)
    return ChatHuggingFace(llm=HuggingFacePipeline(pipeline=made), tokenizer=tokenizer)


def run_way(name: str, folder: Path, temporary: Path, limit: int) -> dict[str, Any]:
    """Run one way in a process of its own; "died" tells how it ended where it did not come to its answer."""
    env = os.environ | {
        "MINICPM_CACHE": str(temporary / "cache"),
        "HF_HUB_OFFLINE": "1",
        "ANONYMIZED_TELEMETRY": "False",
    }
    index = temporary / name.replace(" ", "-")
    command = [
        sys.executable,
        "-m",
        "benchmarks.rag_memory",
        "--limit",
        str(limit),
        "--run",
        str(folder),
        name,
        str(index),
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.communicate()
    leave_groups(process.pid)
    row: dict[str, Any] = {"way": name, "limit": limit}
    if process.returncode == 0:
        return row | json.loads(output.splitlines()[-1])
    return row | {"died": _tell_death(process.returncode, errors)}


def _tell_death(code: int, errors: str) -> str:
    """Return how a process ended: "out of memory" where it was refused some, or was killed; else its last line."""
    if code == -signal.SIGKILL or any(sign in errors for sign in _REFUSED):
        return "out of memory"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return f"signal {-code}" if code < 0 else (lines or ["no message"])[-1][:90]


def show(rows: list[dict[str, Any]]) -> tuple[str, list[Bar]]:
    """Return the table of the rows, and the bars."""
    cells, bars = [], []
    for row in rows:
        limit, seconds = row["limit"] / 2**30, row.get("seconds", {})
        found = row["peak"] / 2**30 if "peak" in row else None
        steps = [seconds.get(step) for step in ("index", "load", "answer")]
        counts = [row.get(name) for name in ("passages", "shown", "prompt_tokens", "answer_tokens")]
        cells.append(
            [row["way"], limit, found, *counts, *steps, "died: " + row["died"] if "died" in row else "answered"]
        )
        if list(WAYS).index(row["way"]) < MUST_FIT:
            bars.append(Bar(f"peak of {row['way']}, GiB", found or float("inf"), limit, at_most=True))
        elif "32 bits" in row["way"]:
            bars.append(Bar(f"the limit ends {row['way']}", float(row.get("died") == "out of memory"), 1.0))
    headers = ["pipeline", "limit GiB", "peak GiB", "passages", "shown", "prompt", "answer"]
    headers += ["index s", "load s", "answer s", "end"]
    enforced = next((row["enforced"] for row in rows if "enforced" in row), "")
    return f"{format_table(headers, cells)}\n\nThe limit is enforced by {enforced}.", bars


def main() -> None:
    """Write the checkpoint and run the ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a folder that was written before; it is kept")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="NAME")
    parser.add_argument("--limit", type=int, default=LIMIT, help="bytes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", nargs=3, metavar=("FOLDER", "WAY", "INDEX"), help="used by the benchmark itself")
    options = parser.parse_args()
    if options.run:
        folder, name, index = options.run
        print(json.dumps(answer(folder, WAYS[name], index, options.limit)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = provide_checkpoint(options.checkpoint, Path(temporary) / "model")
        for name in options.ways:
            rows.append(run_way(name, folder, Path(temporary), options.limit))
            if options.json:
                print(json.dumps(rows[-1]), flush=True)
    if not options.json:
        table, bars = show(rows)
        print(f"{table}\n\n{format_bars(bars)}")


if __name__ == "__main__":
    main()
