"""Tool calls and structured answers: how many are valid, and what they cost.

The same weights, in one process and in turns, are asked with our grammar (forced tokens without a step of the model,
and then with one), with the same prompt alone, and through LangChain's own local class (ChatHuggingFace over
HuggingFacePipeline; left out where langchain-huggingface is not installed). Checkpoints: the demo, and random weights
with a vocabulary of 73,448 tokens, which nothing but the grammar keeps in form.

Run it as `python -m benchmarks.tools`, which prints a table; `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.tool_cases import CASES, Case, judge
from benchmarks.tool_checkpoint import VOCABULARY, write_random_checkpoint
from benchmarks.tool_ways import LangChainLocal, Measured, Way, ask_in_words, ask_ours, ask_step_by_step
from minicpm_core import Engine, Sampling, load
from minicpm_core.guidance import GrammarTokenizer

COLUMNS = {
    "case": "case",
    "way": "way",
    "answers": "answers",
    "refused": "refused",
    "called": "called",
    "valid": "valid",
    "tokens": "tokens",
    "steps": "model steps",
    "ms_per_token": "ms/token",
    "ms_beside_model": "beside model",
    "grammar_ms": "grammar ms",
}
LEGEND = """\
refused: the class raised an error instead of answering. called: answers with a tool call (with a schema: all answers).
valid: of these, all calls read and accepted by their JSON schemas. tokens, model steps: mean per answer, the prompt's
reading counted as one step. Times are the process's processor time, torch with one thread. ms/token: from the end of
the prompt to the end of the answer, median over answers; beside model: of that, outside the model's forward calls.
grammar ms: to write and compile the grammar, median. Overhead of the grammar: beside model of "grammar, step by step"
less that of "prompt alone" for the same request and seed, median over the cases that begin with the grammar."""
REPEATS = 10


def measure_checkpoint(engine: Engine, seeds: int, max_tokens: int) -> dict[str, Any]:
    """Ask every case in every way, the ways in turns, and return the rows and the set-up times."""
    ways: dict[str, Way] = {
        "grammar": partial(ask_ours, engine),
        "grammar, step by step": partial(ask_step_by_step, engine),
        "prompt alone": partial(ask_in_words, engine),
    }
    if importlib.util.find_spec("langchain_huggingface"):
        ways["ChatHuggingFace"] = LangChainLocal(engine).ask
    samplings = [_sampling(0.0, None, max_tokens), *(_sampling(1.0, seed, max_tokens) for seed in range(seeds))]
    setup, tokenizer = _time(lambda: _make_tokenizer(engine))
    for ask in ways.values():  # what is made at the first call is not part of any answer
        ask(CASES[0], "Hello!", samplings[0])
    rows: list[dict[str, Any]] = []
    overheads: list[float] = []
    for case in CASES:
        answers: dict[str, list[Measured]] = {name: [] for name in ways}
        for request in case.requests:
            for sampling in samplings:
                for name, ask in ways.items():
                    answers[name].append(ask(case, request, sampling))
        if case.choice != "auto":
            pairs = zip(answers["grammar, step by step"], answers["prompt alone"], strict=True)
            overheads += [_beside(constrained) - _beside(free) for constrained, free in pairs]
        grammar_ms = _grammar_ms(engine, tokenizer, case, samplings[0])
        for name, given in answers.items():
            rows.append({"case": case.name, "way": name, **summarise(case, given)})
            rows[-1]["grammar_ms"] = grammar_ms if name.startswith("grammar") else None
    return {"tokenizer_setup_s": setup, "overhead_ms_per_token": statistics.median(overheads), "rows": rows}


def summarise(case: Case, given: Sequence[Measured]) -> dict[str, Any]:
    """Return the row of the table that the answers of one case and way make."""
    answers = [answer for answer in given if not answer.refused]
    verdicts = [judge(case, answer.calls, answer.text) for answer in answers]
    timed = [answer for answer in answers if answer.tokens]
    return {
        "answers": len(answers),
        "refused": len(given) - len(answers),
        "called": sum(verdict.called for verdict in verdicts),
        "valid": sum(verdict.valid for verdict in verdicts),
        "tokens": _of(statistics.mean, [answer.tokens for answer in answers]),
        "steps": _of(statistics.mean, [answer.steps for answer in answers]),
        "ms_per_token": _of(statistics.median, [answer.seconds / answer.tokens * 1000 for answer in timed]),
        "ms_beside_model": _of(statistics.median, [_beside(answer) for answer in timed]),
    }


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as aligned text; the case stands in its first row."""
    lines = [list(COLUMNS.values())]
    for number, row in enumerate(rows):
        again = number > 0 and rows[number - 1]["case"] == row["case"]
        lines.append(["" if again and name == "case" else _show(row[name]) for name in COLUMNS])
    widths = [max(len(line[n]) for line in lines) for n in range(len(COLUMNS))]
    aligned = [
        "  ".join(text.ljust(widths[n]) if n < 2 else text.rjust(widths[n]) for n, text in enumerate(line)).rstrip()
        for line in lines
    ]
    return "\n".join(aligned)


def _beside(answer: Measured) -> float:
    """Return the milliseconds per token outside the model."""
    return answer.own_seconds / answer.tokens * 1000


def _show(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _of(mean: Callable[[Sequence[float]], float], values: Sequence[float]) -> float | None:
    return float(mean(values)) if values else None


def _sampling(temperature: float, seed: int | None, max_tokens: int) -> Sampling:
    return Sampling(temperature, top_p=1.0, top_k=0, repetition_penalty=1.0, max_new_tokens=max_tokens, seed=seed)


def _make_tokenizer(engine: Engine) -> GrammarTokenizer:
    tokenizer = GrammarTokenizer(engine.tokenizer, threading.Lock(), [engine.tokenizer.eos_token_id])
    assert tokenizer.made  # made at first use
    return tokenizer


def _grammar_ms(engine: Engine, tokenizer: GrammarTokenizer, case: Case, sampling: Sampling) -> float:
    options = {"tools": case.tools, "tool_choice": case.choice} if case.tools else {"response_schema": case.schema}
    constraint = engine.prepare(
        [{"role": "user", "content": case.requests[0]}], sampling=sampling, **options
    ).constraint
    assert constraint
    room = sampling.max_new_tokens or 0
    times = [_time(lambda: tokenizer.compile(constraint.write(room)))[0] for _ in range(REPEATS)]
    return statistics.median(times) * 1000


def _time(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def _describe_machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    packages = ("torch", "transformers", "llguidance", "langchain-huggingface")
    installed = {name: version(name) for name in packages if importlib.util.find_spec(name.replace("-", "_"))}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **installed,
    }


def main() -> None:
    """Measure both checkpoints and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--seeds", type=int, default=2, help="drawn answers per request, beside the greedy one")
    parser.add_argument("--max-tokens", type=int, default=256, help="most tokens of an answer")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)  # threads that wait for work would count as work outside the model
    report: dict[str, Any] = {"machine": _describe_machine(), "max_tokens": options.max_tokens, "checkpoints": {}}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        random_weights = write_random_checkpoint(Path(folder))
        models: dict[str, str | Path] = {"demo": "demo", f"random weights, {VOCABULARY:,} tokens": random_weights}
        for name, model in models.items():
            with load(model) as engine:
                measured = measure_checkpoint(engine, options.seeds, options.max_tokens)
            report["checkpoints"][name] = measured
            print(
                f"\n{name}; set-up of the grammar's tokenizer {measured['tokenizer_setup_s']:.2f} s, "
                f"overhead of the grammar {measured['overhead_ms_per_token']:.2f} ms per token"
            )
            print(format_table(measured["rows"]), flush=True)
    report["seconds"] = round(time.perf_counter() - began)
    print(f"\n{LEGEND}\n{json.dumps(report['machine'])}; {report['seconds']} s")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
