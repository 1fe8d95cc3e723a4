"""Train the demo checkpoint: `python -m tools.demo_model.train --out minicpm_core/demo`.

Two stages: look-ups among lists of random tokens until they are learnt, then questions over passages.
"""

from __future__ import annotations

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from tools.demo_model.export import export
from tools.demo_model.feeding import LEVELS, feed
from tools.demo_model.meanings import Meanings
from tools.demo_model.network import Network, Shape
from tools.demo_model.tokenizer import save_tokenizer, train_tokenizer
from tools.demo_model.trainer import Trainer, schedule
from tools.demo_model.vocabulary import extend, extend_embeddings

VOCABULARY = 5120
CONTEXT_WINDOW = 4096
REPORT_EVERY = 25
SAVE_EVERY = 100
LEARNT_CHOICE, LEARNT_COPY = 0.93, 0.9


def run_stage(trainer: Trainer, stage: str, args: argparse.Namespace) -> None:
    """Train one stage: "lists" until the look-up is learnt (at most `steps_lists`), "answers" for `steps` steps."""
    work = Path(args.work)
    steps = args.steps_lists if stage == "lists" else args.steps
    begin = 0.0 if stage == "lists" else args.from_progress
    context = get_context("spawn")
    state, queue = context.Array("d", [0.0, begin]), context.Queue(maxsize=16)
    worker = context.Process(target=feed, args=(work / "tokenizer", stage, state, args.seed, queue), daemon=True)
    worker.start()
    started, recent, seen, level_since = time.time(), [], 0, 0
    for step in range(1, steps + 1):
        done = max(step / steps, (time.time() - started) / 60 / args.minutes if args.minutes else 0.0)
        if done > 1:
            break
        progress = begin + (1 - begin) * done
        state[1] = progress
        batch = queue.get()
        rate = min(1.0, step / 40) * schedule(progress, decay=0.1 if stage == "lists" else args.decay)
        probe = args.probe if stage == "lists" else args.probe * max(0.1, 1 - progress)
        recent.append(trainer.step(batch, probe=probe, rate=rate))
        seen += batch["ids"].size
        if step % SAVE_EVERY == 0:
            save(trainer, work, stage)
        if step % REPORT_EVERY:
            continue
        keys = dict.fromkeys(key for row in recent for key in row)
        mean = {k: round(float(np.mean([row[k] for row in recent if k in row])), 4) for k in keys}
        recent = []
        spent = time.time() - started
        row = {"stage": stage, "step": step, "minutes": round(spent / 60, 1), "tokens/s": int(seen / spent)}
        print(json.dumps(row | {"level": int(state[0])} | mean), flush=True)
        if stage == "lists" and mean["number"] >= LEARNT_CHOICE and step - level_since >= REPORT_EVERY:
            if int(state[0]) < len(LEVELS) - 1:
                state[0] += 1
                level_since = step
            elif mean["copy"] >= LEARNT_COPY:
                break
    save(trainer, work, stage)
    worker.kill()


def save(trainer: Trainer, work: Path, stage: str) -> None:
    """Save the weights and their moving average."""
    torch.save(trainer.state(averaged=False), work / f"{stage}.pt")
    torch.save(trainer.state(averaged=True), work / f"{stage}.average.pt")


def train(args: argparse.Namespace) -> None:
    """Train the tokenizer where there is none, run the stages and write the checkpoint."""
    torch.manual_seed(args.seed)
    work = Path(args.work)
    tokens = work / "tokenizer"
    if not (tokens / "tokenizer.json").exists():
        save_tokenizer(extend(train_tokenizer(VOCABULARY)), tokens, context_window=CONTEXT_WINDOW)
    vocabulary = Tokenizer.from_file(str(tokens / "tokenizer.json"))
    shape = Shape(vocab_size=vocabulary.get_vocab_size(), max_position_embeddings=CONTEXT_WINDOW)
    weights = torch.load(args.start, weights_only=True) if args.start else None
    if weights and len(weights["embed_tokens.weight"]) < shape.vocab_size:
        weights["embed_tokens.weight"] = extend_embeddings(weights["embed_tokens.weight"], vocabulary)
    for stage in ("lists", "answers") if args.stage == "all" else (args.stage,):
        trainer = Trainer(
            Network(shape),
            rate=args.rate_lists if stage == "lists" else args.rate,
            compiled=args.compile,
            meanings=Meanings(tokens / "tokenizer.json") if args.meanings else None,
        )
        if weights:
            trainer.load(weights)
        run_stage(trainer, stage, args)
        weights = {name: weight.clone() for name, weight in trainer.state(averaged=False).items()}
    if args.out:
        export(trainer.state(averaged=True), shape, tokens, Path(args.out))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the demo checkpoint.")
    parser.add_argument("--out", help="folder of the finished checkpoint")
    parser.add_argument("--work", default="build/demo_model", help="folder for the tokenizer and saved weights")
    parser.add_argument("--stage", choices=("all", "lists", "answers"), default="all")
    parser.add_argument("--start", help="saved weights to start from")
    parser.add_argument("--steps", type=int, default=3500, help="steps of the stage answers")
    parser.add_argument("--steps-lists", type=int, default=1000, help="most steps of the stage lists")
    parser.add_argument("--minutes", type=float, help="most minutes of a stage; the schedule keeps to them")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the stage answers")
    parser.add_argument("--rate-lists", type=float, default=2.5e-3, help="learning rate of the stage lists")
    parser.add_argument("--decay", type=float, default=0.45, help="share of the stage answers with a falling rate")
    parser.add_argument("--probe", type=float, default=1.0, help="weight of the probes' losses at the start")
    parser.add_argument("--from-progress", type=float, default=0.0, help="where in the stage answers to resume")
    parser.add_argument("--meanings", action=argparse.BooleanOptionalAction, default=True, help="learn what words mean")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
