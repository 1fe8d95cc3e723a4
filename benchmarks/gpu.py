"""MiniCPM models in int4 on a GPU under a hard limit of 4 GiB, against transformers with a BitsAndBytesConfig.

Run it as `python -m benchmarks.gpu [--json FILE] [--document FILE]`: under eight minutes on a machine with a CUDA GPU.
Each model has its real size and random weights, and is measured in processes of its own whose allocator may give out
no more than the limit. The share of the card's bandwidth is what a token has to read (weights and keys and values)
times the tokens per second, over what a copy on the card reaches. Without a GPU it says so and ends with 2;
`--device cpu --tiny` runs the same code on small shapes, which tests the code and measures nothing.

MiniCPM-V 2.6 itself has 7.6 billion parameters, whose int4 weights alone are over 4 GiB: the vision model here has its
layout in the size of MiniCPM-V 4.0.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import memory
from benchmarks.limits import peak as process_peak
from benchmarks.memory import CASES, Case
from benchmarks.prefix import dictated
from benchmarks.tables import describe_machine, format_table

LIMIT = 4 * 2**30
PROMPT, ANSWER, WINDOW = 1000, 64, 2048
BUDGET = 450
"""Seconds after which no further model is begun."""
_BLOCK = 2**25
_MUP = {"scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4, "tie_word_embeddings": True}


def _minicpm(hidden: int, middle: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> Case:
    shape = {"hidden_size": hidden, "intermediate_size": middle, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary}
    return Case({"model_type": "minicpm", "max_position_embeddings": 4096} | shape | _MUP, "int4", WINDOW)


def _layers(name: str, count: int) -> Case:
    case = CASES[name]
    return replace(case, config=case.config | {"num_hidden_layers": count}, quantization="int4", context_window=WINDOW)


MODELS: dict[str, Case] = {
    "MiniCPM4-0.5B": _minicpm(1024, 4096, 24, 16, 2, 73448),
    "MiniCPM-1B": _minicpm(1536, 3840, 52, 24, 8, 73440),
    "MiniCPM5-1B": CASES["MiniCPM5-1B, int4"],
    "MiniCPM-2B": _minicpm(2304, 5760, 40, 36, 36, 122753),
    "MiniCPM3-4B": _layers("MiniCPM3-4B, 8 layers, int4", 62),
    "MiniCPM-V, 4.1B": _layers("MiniCPM-V 4.0, 4 layers, int4", 32),
}
_TINY = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 800,
}
_TINY_MLA = {"q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 32}
_TINY_TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2}


def make_tiny(case: Case) -> Case:
    """Return the case in a size for tests."""
    config = case.config | _TINY | {"num_key_value_heads": 2}
    if "head_dim" in config:
        config["head_dim"] = 64
    return replace(case, config=config | (_TINY_MLA if "q_lora_rank" in config else {}))


def write_checkpoint(folder: Path, case: Case) -> None:
    """Write a checkpoint in bfloat16 whose weights repeat a block of random ones, which takes little time."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    config = memory._write_small_files(folder, case)
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16", "dtype": "bfloat16"}))
    block = (torch.randn(_BLOCK, dtype=torch.float32) * 0.02).bfloat16().view(torch.uint8).numpy().tobytes()
    header: dict[str, Any] = {}
    end = 0
    for name, shape in memory._shapes(folder).items():
        size = math.prod(shape) * 2
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(raw)) + raw)
        for entry in header.values():
            left = entry["data_offsets"][1] - entry["data_offsets"][0]
            while left:
                left -= stream.write(block[: min(left, len(block))])


def measure(folder: Path, way: str, device: str, case: Case) -> dict[str, Any]:
    """Load and answer in this process; return seconds, bytes and rates, or {"end": "out of memory"}."""
    import torch

    cuda = device.startswith("cuda")
    row: dict[str, Any] = {}
    try:
        began = time.perf_counter()
        if way == "ours":
            run, close, row = _start_ours(folder, device, case)
        else:
            if cuda:
                torch.cuda.set_per_process_memory_fraction(LIMIT / torch.cuda.get_device_properties(0).total_memory)
            run, close = _start_stock(folder, device), lambda: None
        row["load_s"] = time.perf_counter() - began
        run(1), run(2)  # what happens once is no part of an answer
        first, whole = min(run(1) for _ in range(3)), min(run(1 + ANSWER) for _ in range(2))
        row |= {"first_token_s": first, "tokens_per_s": ANSWER / max(whole - first, 1e-9), "end": "answered"}
        close()
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error):
            raise
        row["end"] = "refused" if isinstance(error, MemoryError) else "out of memory"
    row["peak"] = torch.cuda.max_memory_reserved() if cuda else process_peak()
    return row | ({"card": torch.cuda.get_device_name()} if cuda else {}) | {"copy_bytes_per_s": copy_rate(device)}


def _start_ours(folder: Path, device: str, case: Case) -> Any:
    from minicpm_core import Sampling, load

    engine = load(folder, quantization="int4", device=device, memory_limit=LIMIT, context_window=case.context_window)
    text = engine.tokenizer.decode(engine.tokenize("The rain stays mainly in the plain. " * PROMPT)[:PROMPT])
    prompt: Any = text
    if case.kind != "text":
        from PIL import Image

        picture = {"type": "image", "image": Image.effect_noise((448, 448), 50).convert("RGB")}
        prompt = [{"role": "user", "content": [picture, {"type": "text", "text": text[:1000]}]}]
    report = engine.memory_report()
    row = {
        "planned": report["total"],
        "on_card": report["total"] - report["runtime"],
        "prompt": len(engine.encode(prompt)),
    }
    row["read_per_token"] = _bytes_read(engine, report, row["prompt"])

    def run(tokens: int) -> float:
        engine._prefixes.clear()
        with dictated([n % 200 + 30 for n in range(tokens)]):
            began = time.perf_counter()
            engine.generate(prompt, sampling=Sampling(temperature=0, max_new_tokens=tokens))
            return time.perf_counter() - began

    return run, engine.close, row


def _bytes_read(engine: Any, report: dict[str, int], tokens: int) -> float:
    """Return the bytes that a token reads: all weights but an untied embedding table, and keys and values so far."""
    config = engine.model.config.get_text_config()
    value = 2 if str(engine.model.dtype) != "torch.float32" else 4
    unread = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size * value
    return report["weights"] - unread + report["kv_cache"] * tokens / engine.context_window


def _start_stock(folder: Path, device: str) -> Any:
    """Return what answers with transformers' class and a BitsAndBytesConfig, as its documentation shows."""
    import torch
    import transformers

    from minicpm_core.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(folder)
    quantized = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = getattr(transformers, checkpoint.family.model_class).from_pretrained(
        folder,
        config=checkpoint.family.translate(checkpoint.config),
        quantization_config=quantized,
        dtype=torch.bfloat16,
        device_map={"": device},
    )
    ids = torch.tensor([[n % 300 + 20 for n in range(PROMPT)]], device=device)

    def run(tokens: int) -> float:
        began = time.perf_counter()
        model.generate(ids, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0)
        return time.perf_counter() - began

    return run


def copy_rate(device: str) -> float:
    """Return the bytes per second that a copy reads and writes on the device."""
    import torch

    cuda = device.startswith("cuda")
    size = 2**28 if cuda else 2**24
    if cuda:
        torch.cuda.empty_cache()
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = math.inf
    for _ in range(10):
        began = time.perf_counter()
        target.copy_(source)
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size / best


def run_model(name: str, case: Case, folder: Path, device: str, tiny: bool) -> list[dict[str, Any]]:
    """Measure a model both ways, each in a process of its own."""
    rows = []
    ways = ("ours", "stock") if case.kind == "text" else ("ours",)  # stock transformers has no class for the other
    for way in ways:
        command = [sys.executable, "-m", "benchmarks.gpu", "--device", device, "--run", str(folder), name, way]
        done = subprocess.run([*command, *(["--tiny"] if tiny else [])], capture_output=True, text=True)
        if done.returncode:
            row = {"end": "failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1][:100]}
        else:
            row = json.loads(done.stdout.splitlines()[-1])
        rows.append({"model": name, "way": way} | row)
    if len(rows) == 2 and "read_per_token" in rows[0]:
        rows[1]["read_per_token"] = rows[0]["read_per_token"]
    return rows


def show(rows: list[dict[str, Any]]) -> str:
    """Return the table."""
    cells = []
    for row in rows:
        peak, planned, rate = row.get("peak"), row.get("on_card"), row.get("tokens_per_s")
        share = (
            row["read_per_token"] * rate / row["copy_bytes_per_s"] * 100 if rate and "read_per_token" in row else None
        )
        sizes = [None if size is None else size / 2**30 for size in (peak, planned)]
        cells.append([row["model"], row["way"], row["end"], row.get("load_s"), *sizes])
        cells[-1] += [planned / peak if planned and peak else None, row.get("first_token_s"), rate, share]
    headers = ("model", "way", "end", "load s", "peak GiB", "planned GiB", "plan / peak", "first token s", "tokens/s")
    return format_table((*headers, "% of copy"), cells)


def main() -> int:
    """Measure the models and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to test the code")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the table there as Markdown")
    parser.add_argument("--run", nargs=3, metavar=("FOLDER", "MODEL", "WAY"), help="used by the benchmark itself")
    options = parser.parse_args()
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("benchmarks.gpu: torch sees no CUDA device here; run it on a machine with one\n")
        return 2
    with patch.dict(memory._TOWER, _TINY_TOWER if options.tiny else {}):
        models = {name: make_tiny(case) if options.tiny else case for name, case in MODELS.items()}
        if options.run:
            folder, name, way = options.run
            print(json.dumps(measure(Path(folder), way, options.device, models[name])))
            return 0
        began, rows = time.perf_counter(), []
        for name in options.models:
            if time.perf_counter() - began > BUDGET:
                rows.append({"model": name, "way": "-", "end": "not run: out of time"})
                continue
            with tempfile.TemporaryDirectory() as temporary:
                write_checkpoint(Path(temporary), models[name])
                rows += run_model(name, models[name], Path(temporary), options.device, options.tiny)
    machine = describe_machine() | {"card": next((row["card"] for row in rows if "card" in row), options.device)}
    seconds = round(time.perf_counter() - began)
    line = "; ".join(f"{name} {value}" for name, value in machine.items())
    text = f"{time.strftime('%Y-%m-%d')}, `python -m benchmarks.gpu`, {seconds} s. Machine: {line}.\n\n{show(rows)}"
    print(text)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "seconds": seconds, "rows": rows}, indent=1) + "\n")
    if options.document:
        options.document.write_text(f"# int4 on a GPU under 4 GiB\n\n{text}\n", encoding="utf-8")
    return int(any(row["end"].startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
