"""int4 on the CPU against stock bitsandbytes through transformers: loading, first token, decoding; one table.

Run it as `python -m benchmarks.int4`; it writes a random checkpoint in MiniCPM5-1B's shape to a temporary folder
(2.2 GB) and measures both in one process, in turns, on one thread and on all cores. Beside the seconds on the clock,
the processor's own are compared, which other programs on the same cores change less. `--json` prints each turn.
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
from unittest import mock

from benchmarks.loading_memory import write_checkpoint

PROMPT, SHORT, ANSWER = 1000, 40, 16
_SHARED = 3
"""Tokens that all prompts may begin with."""
BARS = {"load": 3.0, "second load": 30.0, "first token": 4.5, "decode": 1.3}
Spent = tuple[float, float]
"""Seconds on the clock, and of the processor."""
Pairs = dict[str, list[tuple[Spent, Spent]]]
"""Stock and ours, by what was measured."""


def timed(act: Callable[[], Any]) -> tuple[Spent, Any]:
    """Return what `act` takes, and its result."""
    gc.collect()
    clock, processor = time.perf_counter(), time.process_time()
    result = act()
    return (time.perf_counter() - clock, time.process_time() - processor), result


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


def run_stock(model: Any, ids: list[int], tokens: int) -> Spent:
    """Return what a greedy answer of so many tokens takes."""
    import torch

    def act() -> None:
        model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0
        )

    return timed(act)[0]


def run_ours(engine: Any, text: str, tokens: int) -> Spent:
    """Return what a greedy answer of so many tokens takes."""
    from minicpm_core import Sampling
    from minicpm_core.speculation import Lookup

    with mock.patch.object(Lookup, "draft", return_value=[]):  # a random model repeats itself, which is easily guessed
        spent, answer = timed(lambda: engine.generate(text, sampling=Sampling(temperature=0, max_new_tokens=tokens)))
    assert answer.usage.completion_tokens == tokens, answer.usage
    assert answer.usage.cached_tokens <= _SHARED, answer.usage
    return spent


def measure(folder: Path, threads: int, rounds: int, answer: int) -> Pairs:
    """Return what was measured with so many threads; each round has a prompt of its own, which no cache knows."""
    import torch

    import minicpm_core

    torch.set_num_threads(threads)
    os.environ["MINICPM_CACHE"] = str(folder / f"cache-{threads}")
    pairs: Pairs = {name: [] for name in BARS}
    stock_load, stock = timed(lambda: load_stock(folder))
    ours_load, engine = timed(lambda: minicpm_core.load(folder, quantization="int4", device="cpu"))
    engine.close()
    torch.set_num_threads(threads)
    second, engine = timed(lambda: minicpm_core.load(folder, quantization="int4", device="cpu"))
    torch.set_num_threads(threads)
    pairs["load"].append((stock_load, ours_load))
    pairs["second load"].append((stock_load, second))
    run_stock(stock, list(range(10, 10 + SHORT)), 2)  # packs the weights, which its users wait for once
    run_ours(engine, "The rain", 2)
    for turn in range(rounds):
        ids, text = _prompt(engine, f"{turn} ", PROMPT)
        pairs["first token"].append((run_stock(stock, ids, 1), run_ours(engine, text, 1)))
    for turn in range(3 * rounds):
        ids, text = _prompt(engine, f"{turn} short ", SHORT)
        first = run_stock(stock, ids, 1), run_ours(engine, text, 1)
        _, text = _prompt(engine, f"{turn} long ", SHORT)
        whole = run_stock(stock, ids, 1 + answer), run_ours(engine, text, 1 + answer)
        stock_token, ours_token = (
            ((long[0] - short[0]) / answer, (long[1] - short[1]) / answer)
            for long, short in zip(whole, first, strict=True)
        )
        pairs["decode"].append((stock_token, ours_token))
    engine.close()
    return pairs


def _prompt(engine: Any, start: str, tokens: int) -> tuple[list[int], str]:
    """Return a prompt's ids and text."""
    text = engine.tokenizer.decode(engine.tokenize(start + "The rain stays mainly in the plain. " * tokens)[:tokens])
    return engine.tokenize(text), text


def print_table(threads: int, pairs: Pairs) -> None:
    """Print the medians, the range of the ratios, and the median ratio of the processor's time."""
    heads = f"{'stock s':>9} {'ours s':>9} {'times':>7}  {'range':>13}  {'bar':>5}  {'cpu times':>9}"
    print(f"{threads} thread(s)     {heads}")
    for name, spent in pairs.items():
        ratios = sorted(stock[0] / ours[0] for stock, ours in spent)
        stock, ours = (statistics.median(side[0] for side in column) for column in zip(*spent, strict=True))
        processor = statistics.median(stock[1] / ours[1] for stock, ours in spent)
        bar = 6.0 if name == "first token" and threads == 1 else BARS[name]
        span = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        times = statistics.median(ratios)
        print(f"{name:<16} {stock:9.3f} {ours:9.3f} {times:7.2f}  {span:>13}  {bar:5.1f}  {processor:9.2f}", flush=True)


def main() -> None:
    """Write the checkpoint and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="of first token; of decoding three times as many")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--answer", type=int, default=ANSWER, help="tokens decoded after the first")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or is to be kept")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import bitsandbytes.nn  # imports are not loading
    from transformers.models.llama import modeling_llama
    from transformers.utils import logging

    assert bitsandbytes.nn, modeling_llama
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
                kinds = {"seconds": 0, "processor_seconds": 1}
                turns = {
                    kind: {name: [(a[i], b[i]) for a, b in spent] for name, spent in pairs.items()}
                    for kind, i in kinds.items()
                }
                print(json.dumps({"threads": threads, **turns}), flush=True)
            else:
                print_table(threads, pairs)


if __name__ == "__main__":
    main()
