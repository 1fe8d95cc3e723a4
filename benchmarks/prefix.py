"""What follow-up questions and copied answers cost, against the same engine without prefixes and without guesses.

Run it as `python -m benchmarks.prefix [--int4]`; it writes a random checkpoint in MiniCPM5-1B's shape to a temporary
folder (2.2 GB), asks in turn with and without, and prints a table of medians and the bars; with `--json` one line per
comparison, the rounds' ratios included. Where other programs run too, set OMP_NUM_THREADS=1 and read the processor's
time. Answers at that size are dictated, since random weights say nothing: the model computes every step, and what it
should choose is given. The demo checkpoint answers by itself.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import minicpm_core
from benchmarks.loading_memory import write_checkpoint
from benchmarks.tables import Bar, format_bars, format_table
from minicpm_core import Engine, Sampling
from minicpm_core.rag import build_messages
from minicpm_core.sampler import Sampler
from minicpm_core.speculation import Lookup
from tests.unseen_documents import OFFICE_FILES, TOWN_FILES

DEMO = Path(minicpm_core.__file__).parent / "demo"
PASSAGE_TOKENS = 1500
BARS = {"follow-up": 8.0, "copied": 1.5, "free": 0.95, "refused": 0.95}
"""How many times sooner, by the beginning of what is compared."""
QUESTIONS = ("Who has to be told when the heating fails?", "What does a parking permit cost for a year?")
FREE = (
    "In short, the notes describe how two quite different places are run from day to day. People there mostly rely on "
    "a handful of phone numbers, on fixed opening hours and on knowing who is in charge of what. Fees exist, yet they "
    "are modest, and most of them can be avoided by asking early. If something breaks, somebody is expected to write "
    "it down before anybody repairs it, which sounds slow but saves arguments later."
)
DEMO_PASSAGES = (
    "The Falcon lamp weighs 450 grams and is made of brass.",
    "The battery of the Falcon lamp lasts 14 hours.",
    "The lease was signed by Maria Keller on 3 May 2021.",
)
DEMO_QUESTIONS = {
    "copied": ("Who signed the lease?", "What does the Falcon lamp weigh?", "How long does the battery last?"),
    "refused": ("Where is the swimming pool?", "Who repairs the roof?", "When does the shop open?"),
}


def read_passages() -> list[str]:
    """Return the paragraphs of the acceptance test's documents."""
    texts = [text for files in (OFFICE_FILES, TOWN_FILES) for text in files.values() if isinstance(text, str)]
    return [line.strip() for text in texts for line in text.splitlines() if len(line) > 40 and line.isascii()]


@contextmanager
def dictated(ids: list[int]) -> Iterator[None]:
    """Let every answer consist of these tokens, whatever the model says."""

    class Dictated(Sampler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.ids = iter(ids)

        def draw(self, logits: Any, allowed: Any = None) -> int:
            super().draw(logits, allowed)  # takes its time, as always
            return next(self.ids)

    with patch("minicpm_core.answers.Sampler", Dictated):
        yield


@contextmanager
def unguessed() -> Iterator[None]:
    """Let answers be computed token by token."""
    with patch.object(Lookup, "draft", lambda *_: []):
        yield


Times = tuple[float, float]
"""By the clock, and of the processor (all threads)."""


def seconds(act: Callable[[], Any]) -> Times:
    """Return how long something takes."""
    started = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def report(what: str, without: list[Times], with_: list[Times], **more: Any) -> dict[str, Any]:
    """Return one comparison."""
    shown: dict[str, Any] = {"what": what} | more
    for place, name in enumerate(("clock", "processor")):
        slow, fast = [times[place] for times in without], [times[place] for times in with_]
        ratios = [a / b for a, b in zip(slow, fast, strict=True)]
        shown[name] = {
            "without": round(statistics.median(slow), 3),
            "with": round(statistics.median(fast), 3),
            "ratio": round(statistics.median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
        }
    return shown


Rows = Iterator[dict[str, Any]]


def compare_follow_up(engine: Engine, passages: list[str], rounds: int) -> Rows:
    """Time the first token of a question on passages that were read before, and of one that is read as a whole."""
    prompts = [build_messages(question, passages) for question in QUESTIONS]
    lengths = [engine.count_tokens(prompt) for prompt in prompts]
    cold, follow_up, usages = [], [], []
    for _ in range(rounds):
        engine._prefixes.clear()
        one = Sampling(temperature=0, max_new_tokens=1)
        cold.append(seconds(lambda: engine.generate(prompts[0], sampling=one)))  # noqa: B023
        follow_up.append(seconds(lambda: usages.append(engine.generate(prompts[1], sampling=one).usage)))  # noqa: B023
    yield report(
        "follow-up question, first token", cold, follow_up, prompt_tokens=lengths, cached=usages[-1].cached_tokens
    )


def compare_guesses(engine: Engine, passages: list[str], rounds: int) -> Rows:
    """Time dictated answers, copied and free, on a prompt that was read before."""
    copied = next(text for text in passages if 30 <= len(engine.tokenize(text)) <= 60)
    prompt = build_messages(QUESTIONS[0], passages)
    engine.generate(prompt, sampling=Sampling(max_new_tokens=1))
    for kind, text in (("copied", f"[3] {copied}"), ("free", FREE)):
        ids = engine.tokenize(text)[:90]
        sampling = Sampling(temperature=0, max_new_tokens=len(ids))

        def answer(ids: list[int] = ids, sampling: Sampling = sampling) -> None:
            with dictated(ids):
                engine.generate(prompt, sampling=sampling)

        without, with_ = [], []
        for _ in range(rounds):
            with unguessed():
                without.append(seconds(answer))
            with_.append(seconds(answer))
        yield report(f"{kind} answer", without, with_, answer_tokens=len(ids))


def compare_demo(rounds: int) -> Rows:
    """Time the demo checkpoint's own greedy answers."""
    with minicpm_core.load("demo") as engine:
        for kind, questions in DEMO_QUESTIONS.items():
            prompts = [build_messages(question, DEMO_PASSAGES) for question in questions]

            def answer(prompts: Any = prompts) -> list[str]:
                return [engine.generate(p, sampling=Sampling(temperature=0)).content for p in prompts]

            answers = answer()
            without, with_ = [], []
            for _ in range(rounds):
                with unguessed():
                    without.append(seconds(answer))
                    assert answer() == answers
                with_.append(seconds(answer))
            yield {"model": "demo", **report(f"{kind} answers", without, with_, answers=answers)}


def provide_checkpoint(given: Path | None, made: Path) -> Path:
    """Return the folder of the checkpoint: the one that was given, or a new one with the demo's tokenizer."""
    folder = given or made
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(DEMO / name, folder / name)
    return folder


def compare(folder: Path, quantization: str, rounds: int) -> Rows:
    """Yield the comparisons on a checkpoint of 1B parameters."""
    with minicpm_core.load(folder, dtype="bfloat16", quantization=quantization, context_window=4096) as engine:
        passages: list[str] = []
        for text in read_passages() * 9:
            if engine.count_tokens(build_messages(QUESTIONS[0], [*passages, text])) > PASSAGE_TOKENS:
                break
            passages.append(text)
        for row in (*compare_follow_up(engine, passages, rounds), *compare_guesses(engine, passages, rounds)):
            yield {"model": f"1B, {quantization}", **row}


def show(rows: list[dict[str, Any]]) -> tuple[str, list[Bar]]:
    """Return the table of the rows, and the bars."""
    cells, bars = [], []
    for row in rows:
        name, kinds = f"{row['model']}: {row['what']}", ("clock", "processor")
        cells.append([name, *(row[kind][column] for kind in kinds for column in ("without", "with", "ratio"))])
        if (bar := next((least for begin, least in BARS.items() if row["what"].startswith(begin)), None)) is not None:
            bars.append(Bar(name, row["clock"]["ratio"], bar))
    headers = ("", "without s", "with s", "times", "CPU s without", "CPU s with", "times (CPU)")
    return format_table(headers, cells), bars


def main() -> None:
    """Write the checkpoint, compare, and take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--int4", action="store_true", help="quantise the weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, help="a folder that was written before; it is kept")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = provide_checkpoint(options.checkpoint, Path(temporary) / "model")
        quantization = "int4" if options.int4 else "none"
        for found in (compare_demo(5 * options.rounds), compare(folder, quantization, options.rounds)):
            for row in found:
                rows.append(row)
                if options.json:
                    print(json.dumps(row), flush=True)
    if not options.json:
        table, bars = show(rows)
        print(f"{table}\n\n{format_bars(bars)}")


if __name__ == "__main__":
    main()
