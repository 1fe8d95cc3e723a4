"""`batch` of eight prompts against a loop over them, through LangChain's class, on the same loaded weights.

Run it as `python -m benchmarks.batch`; it writes a random checkpoint in MiniCPM5-1B's shape to a temporary folder
(2.2 GB) and asks in turn, in int4 and in bfloat16. `--json` prints a line per kind of weights. What is timed are
dictated answers of plain prose, since random weights repeat one token, which the loop alone would guess; what is
compared are the model's own greedy answers and their log probabilities.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minicpm_core
from benchmarks.prefix import FREE, dictated, provide_checkpoint, seconds
from benchmarks.tables import Bar, format_bars, format_table
from langchain_minicpm import ChatMiniCPM
from minicpm_core import Engine, Sampling

BAR = 3.0
ANSWER = 32
PROMPTS = (
    "Who repairs the roof?",
    "What does a parking permit cost for a year, and where is it sold?",
    "Name three cities on the Rhine.",
    "Write one sentence about a lamp that is waterproof to a depth of one metre.",
    "How long is the warranty on the battery, if there is one at all?",
    "Translate into plain words: the deposit is returned within thirty days after the keys are handed back.",
    "Why do leaves turn red?",
    "List what a tenant may keep in the cellar, and what has to stay outside the house.",
)


class Clock:
    """Adds up the seconds and the calls of a module."""

    def __init__(self, module: Any) -> None:
        self.seconds, self.calls, self._began = 0.0, 0, 0.0
        self._hooks = (module.register_forward_pre_hook(self._begin), module.register_forward_hook(self._end))

    def _begin(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began
        self.calls += 1

    def take(self) -> tuple[float, int]:
        """Return what was added up, and begin anew."""
        taken, self.seconds, self.calls = (self.seconds, self.calls), 0.0, 0
        return taken


def compare_answers(engine: Engine, tokens: int) -> dict[str, Any]:
    """Return how many greedy answers are the same, and the largest difference of their tokens' log probabilities."""
    options: dict[str, Any] = {"sampling": Sampling(temperature=0, max_new_tokens=tokens), "logprobs": 0}
    turns = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    together = engine.generate_batch(turns, **options)
    alone = [engine.generate(turn, **options) for turn in turns]
    pairs = [list(zip(a.logprobs, b.logprobs, strict=False)) for a, b in zip(together, alone, strict=True)]
    same = sum(
        a.content == b.content and a.usage == b.usage and all(x.id == y.id for x, y in pair)
        for a, b, pair in zip(together, alone, pairs, strict=True)
    )
    return {"same": same, "difference": max(abs(x.logprob - y.logprob) for pair in pairs for x, y in pair)}


def compare_times(engine: Engine, rounds: int, tokens: int) -> dict[str, Any]:
    """Return the times of both by the clock and of the processor, and where the model spends them."""
    chat = ChatMiniCPM(engine=engine, temperature=0, max_tokens=tokens)
    model, head = Clock(engine.model), Clock(engine.model.get_output_embeddings())
    ids = engine.tokenize(FREE)[:tokens]
    row: dict[str, Any] = {"prompts": len(PROMPTS), "answer_tokens": len(ids)}
    ways: dict[str, Callable[[], Any]] = {
        "loop": lambda: [chat.invoke(prompt) for prompt in PROMPTS],
        "batch": lambda: chat.batch(list(PROMPTS)),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with dictated(ids):
        for number in range(rounds + 1):
            for name, act in ways.items():
                engine._prefixes.clear()
                model.take(), head.take()
                spent = seconds(act)
                if number:  # the first round warms up
                    times[name].append(spent)
                row[f"{name}_model_s"], row[f"{name}_passes"] = model.take()
                row[f"{name}_head_s"], _ = head.take()
    for place, kind in enumerate(("clock", "processor")):
        loop, batch = ([spent[place] for spent in times[name]] for name in ways)
        ratios = [a / b for a, b in zip(loop, batch, strict=True)]
        row[kind] = {"loop": statistics.median(loop), "batch": statistics.median(batch), "ratios": ratios}
        row[kind]["ratio"] = statistics.median(ratios)
    return row


def measure(folder: Path, quantization: str, rounds: int, tokens: int) -> dict[str, Any]:
    """Return the row of one kind of weights."""
    with minicpm_core.load(folder, dtype="bfloat16", quantization=quantization, context_window=1024) as engine:
        same = compare_answers(engine, min(tokens, 8))
        return {"weights": quantization, **same, **compare_times(engine, rounds, tokens)}


def show(rows: list[dict[str, Any]]) -> tuple[str, list[Bar]]:
    """Return the table of the rows, and the bars."""
    cells, bars = [], []
    for row in rows:
        clock, processor = row["clock"], row["processor"]
        per_pass = [row[f"{name}_model_s"] / row[f"{name}_passes"] * 1000 for name in ("loop", "batch")]
        head = [row[f"{name}_head_s"] / row[f"{name}_passes"] * 1000 for name in ("loop", "batch")]
        rate = row["prompts"] * row["answer_tokens"] / clock["batch"]
        cells.append(
            [row["weights"], clock["loop"], clock["batch"], clock["ratio"], processor["ratio"], rate, *per_pass]
        )
        cells[-1] += [*head, f"{row['same']} of {row['prompts']}", row["difference"]]
        bars.append(Bar(f"batch of {row['prompts']}, {row['weights']}", clock["ratio"], BAR))
        bars.append(Bar(f"same greedy answers, {row['weights']}", row["same"], row["prompts"]))
    headers = ("weights", "loop s", "batch s", "times", "times (CPU)", "tokens/s", "ms a pass of 1", "of 8")
    headers += ("head ms of 1", "of 8", "same", "logprob differs by")
    return format_table(headers, cells), bars


def main() -> None:
    """Write the checkpoint and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", choices=("int4", "none"), default=["int4", "none"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answer", type=int, default=ANSWER, help="tokens of an answer")
    parser.add_argument("--checkpoint", type=Path, help="a folder that was written before; it is kept")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = provide_checkpoint(options.checkpoint, Path(temporary) / "model")
        for quantization in options.weights:
            rows.append(measure(folder, quantization, options.rounds, options.answer))
            if options.json:
                print(json.dumps(rows[-1]), flush=True)
    if not options.json:
        table, bars = show(rows)
        print(f"{table}\n\n{format_bars(bars)}")


if __name__ == "__main__":
    main()
