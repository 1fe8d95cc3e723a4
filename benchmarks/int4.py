"""int4 on the CPU against stock bitsandbytes through transformers: loading, first token, decoding; one table.

Run it as `python -m benchmarks.int4`; it writes a random checkpoint in MiniCPM5-1B's shape to a temporary folder
(2.2 GB) and measures both in one process, in turns, on one thread and on all cores. `--json` prints each turn.
The weights are random: the figures say how fast, not how well the model answers.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.loading_memory import write_checkpoint

PROMPT, ANSWER = 1000, 16
BARS = {"load": 3.0, "second load": 30.0, "first token": 4.5, "decode": 1.3}


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that `act` takes, and its result."""
    gc.collect()
    started = time.perf_counter()
    result = act()
    return time.perf_counter() - started, result


def load_stock(folder: Path) -> Any:
    """Load as transformers' documentation shows."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantized, dtype=torch.bfloat16, device_map="cpu"
    )


def run_stock(model: Any, ids: list[int], tokens: int) -> float:
    """Return the seconds of a greedy answer of so many tokens."""
    import torch

    def act() -> None:
        model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0
        )

    return timed(act)[0]


def run_ours(engine: Any, text: str, tokens: int) -> float:
    """Return the seconds of a greedy answer of so many tokens."""
    from minicpm_core import Sampling

    seconds, answer = timed(lambda: engine.generate(text, sampling=Sampling(temperature=0, max_new_tokens=tokens)))
    assert answer.usage.completion_tokens == tokens, answer.usage
    return seconds


def measure(folder: Path, threads: int, rounds: int, answer: int) -> dict[str, list[tuple[float, float]]]:
    """Return pairs of seconds, stock and ours, by what was measured."""
    import torch

    import minicpm_core

    torch.set_num_threads(threads)
    os.environ["MINICPM_CACHE"] = str(folder / f"cache-{threads}")
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in BARS}
    stock_load, stock = timed(lambda: load_stock(folder))
    ours_load, engine = timed(lambda: minicpm_core.load(folder, quantization="int4", device="cpu"))
    engine.close()
    torch.set_num_threads(threads)
    second, engine = timed(lambda: minicpm_core.load(folder, quantization="int4", device="cpu"))
    torch.set_num_threads(threads)
    pairs["load"].append((stock_load, ours_load))
    pairs["second load"].append((stock_load, second))
    text = "The rain stays mainly in the plain. " * PROMPT
    ids = engine.tokenize(text)[:PROMPT]
    text = engine.tokenizer.decode(ids)
    ids = engine.tokenize(text)
    run_stock(stock, ids[:40], 2)  # packs the weights, which its users wait for once
    run_ours(engine, "The rain", 2)
    for _ in range(rounds):
        first = run_stock(stock, ids, 1), run_ours(engine, text, 1)
        whole = run_stock(stock, ids, 1 + answer), run_ours(engine, text, 1 + answer)
        pairs["first token"].append(first)
        pairs["decode"].append(((whole[0] - first[0]) / answer, (whole[1] - first[1]) / answer))
    engine.close()
    return pairs


def print_table(threads: int, pairs: dict[str, list[tuple[float, float]]]) -> None:
    """Print the medians, and the range of the ratios."""
    print(f"{threads} thread(s)     {'stock s':>9} {'ours s':>9} {'times':>7}  {'range':>13}  {'bar':>5}")
    for name, seconds in pairs.items():
        ratios = sorted(stock / ours for stock, ours in seconds)
        stock, ours = (statistics.median(column) for column in zip(*seconds, strict=True))
        bar = 6.0 if name == "first token" and threads == 1 else BARS[name]
        span = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"{name:<16} {stock:9.3f} {ours:9.3f} {statistics.median(ratios):7.2f}  {span:>13}  {bar:5.1f}")


def main() -> None:
    """Write the checkpoint and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of first token and decoding")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--answer", type=int, default=ANSWER, help="tokens decoded after the first")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or is to be kept")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "model.safetensors").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(folder)
        for threads in options.threads:
            pairs = measure(folder, threads, options.rounds, options.answer)
            if options.json:
                print(json.dumps({"threads": threads, "seconds": pairs}), flush=True)
            else:
                print_table(threads, pairs)


if __name__ == "__main__":
    main()
