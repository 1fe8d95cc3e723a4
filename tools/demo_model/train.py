"""Train the demo checkpoint: `python -m tools.demo_model.train --out minicpm_core/demo`."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo_model.encoding import Encoded, Encoder, collate
from tools.demo_model.export import export
from tools.demo_model.network import Network, Shape
from tools.demo_model.tokenizer import save_tokenizer, train_tokenizer

VOCABULARY = 5120
TOKENS_PER_BATCH = 6144
LEVELS = ((2, 4), (2, 6), (3, 6), (3, 8), (4, 10), (5, 12), (5, 16))


def generate(stage: str, level: int, progress: float, encoder: Encoder, rng: Random) -> Encoded:
    """Return one training example of `stage`."""
    if stage == "lists":
        lists, length = LEVELS[level if rng.random() < 0.8 else rng.randint(0, level)]
        return encoder.encode_lists(rng, lists=lists, length=length)
    from tools.demo_model.tasks import draw

    if rng.random() < 0.06 * (1 - progress):
        lists, length = LEVELS[-1]
        return encoder.encode_lists(rng, lists=lists, length=length)
    return encoder.encode_example(draw(rng, progress))


def batches(folder: Path, stage: str, state: Any, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield padded batches without end; `state` holds the level of the lists and the progress of training."""
    encoder, rng = Encoder(folder), Random(seed)
    while True:
        pool = [generate(stage, int(state[0]), float(state[1]), encoder, rng) for _ in range(400)]
        pool = [e for e in pool if len(e.ids) <= 1000]
        pool.sort(key=lambda e: len(e.ids))
        cut: list[list[Encoded]] = [[]]
        for example in pool:
            width = -(-len(example.ids) // 16) * 16
            if cut[-1] and (len(cut[-1]) + 1) * width > TOKENS_PER_BATCH:
                cut.append([])
            cut[-1].append(example)
        rng.shuffle(cut)
        for batch in cut:
            if len(batch) * len(batch[-1].ids) > TOKENS_PER_BATCH // 2:
                yield collate(batch)


def feed(folder: Path, stage: str, state: Any, seed: int, queue: Any) -> None:
    """Put batches into `queue` for ever (runs in its own process)."""
    os.nice(3)
    torch.set_num_threads(1)
    for batch in batches(folder, stage, state, seed):
        queue.put(batch)


class Trainer:
    """Float32 weights with Muon and AdamW; the network computes in bfloat16."""

    def __init__(self, network: Network, *, rate: float, compiled: bool) -> None:
        self.network = network.to(torch.bfloat16)
        self.network.cos, self.network.sin = network.cos.float(), network.sin.float()
        self.forward = torch.compile(self.network, dynamic=True) if compiled else self.network
        self.names = [name for name, _ in self.network.named_parameters()]
        self.low = list(self.network.parameters())
        self.master = [p.detach().float().clone() for p in self.low]
        self.average = [p.clone() for p in self.master]
        matrices = [p for n, p in zip(self.names, self.master, strict=True) if "layers" in n and p.dim() == 2]
        others = [p for n, p in zip(self.names, self.master, strict=True) if "layers" not in n or p.dim() != 2]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self.rates = (rate, rate)
        self.steps = 0

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a saved network."""
        for name, master, average, low in zip(self.names, self.master, self.average, self.low, strict=True):
            if name in state:
                master.copy_(state[name])
                average.copy_(state[name])
                low.data.copy_(state[name])

    def step(self, batch: dict[str, np.ndarray], *, probe: float, rate: float) -> dict[str, float]:
        """Take one step at `rate` times the full learning rate; returns losses and accuracies."""
        net = self.network
        t = {key: torch.from_numpy(value) for key, value in batch.items()}
        final, early, late = self.forward(t["ids"])
        size = net.shape.hidden_size
        logits = F.linear(final.reshape(-1, size)[t["where"]], net.embed_tokens.weight).float()
        losses = F.cross_entropy(logits, t["target"], reduction="none")
        answer = (losses * t["weight"]).sum() / t["weight"].sum()
        total = answer
        stats: dict[str, float] = {}
        if probe > 0 and len(batch["passage_at"]):
            seen = net.probe_passage(early.reshape(-1, size)[t["passage_at"]]).float()
            looked = net.probe_question(late.reshape(-1, size)[t["found_at"]]).float()
            one, two = F.cross_entropy(seen, t["passage"]), F.cross_entropy(looked, t["found"])
            total = total + probe * (one + two)
            stats["probe1"] = (seen.detach().argmax(-1) == t["passage"]).float().mean().item()
            stats["probe2"] = (t["found"].gather(1, looked.detach().argmax(-1, keepdim=True)) > 0).float().mean().item()
        total.backward()
        grads = [p.grad.float() for p in self.low]
        norm = torch.nn.utils.get_total_norm(grads)
        scale = min(1.0, 1.0 / (float(norm) + 1e-6))
        for master, grad, low in zip(self.master, grads, self.low, strict=True):
            master.grad = grad.mul_(scale)
            low.grad = None
        for optimizer, full in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full * rate
            optimizer.step()
        self.steps += 1
        decay = min(0.998, 1 - 1 / (self.steps + 1))
        torch._foreach_lerp_(self.average, self.master, 1 - decay)
        torch._foreach_copy_([p.data for p in self.low], self.master)
        right = (logits.detach().argmax(-1) == t["target"]).float()
        first, second, rest = (t["offset"] == 0), (t["offset"] == 1), (t["offset"] > 2)
        stats |= {
            "loss": answer.item(),
            "first": right[first].mean().item(),
            "number": right[second].mean().item(),
            "copy": right[rest].mean().item() if rest.any() else 1.0,
        }
        return stats

    def state(self, *, averaged: bool) -> dict[str, Tensor]:
        """Return the weights by name, in float32."""
        return dict(zip(self.names, self.average if averaged else self.master, strict=True))


def schedule(progress: float, *, warm: float, decay: float) -> float:
    """Return the share of the full rate: linear warm-up, flat, cosine to 2 % over the last `decay`."""
    if progress < warm:
        return progress / warm
    if progress < 1 - decay:
        return 1.0
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - 1 + decay) / decay))


def train(args: argparse.Namespace) -> None:
    """Run one stage and save weights as it goes."""
    torch.manual_seed(args.seed)
    work = Path(args.work)
    tokens = work / "tokenizer"
    if not (tokens / "tokenizer.json").exists():
        save_tokenizer(train_tokenizer(VOCABULARY), tokens, context_window=4096)
    trainer = Trainer(Network(Shape(vocab_size=VOCABULARY)), rate=args.rate, compiled=args.compile)
    if args.start:
        trainer.load(torch.load(args.start, weights_only=True))
    context = get_context("spawn")
    state, queue = context.Array("d", [0.0, args.from_progress]), context.Queue(maxsize=16)
    worker = context.Process(target=feed, args=(tokens, args.stage, state, args.seed, queue), daemon=True)
    worker.start()
    begun, recent, seen, level_since = time.time(), [], 0, 0
    step = 0
    while True:
        minutes = (time.time() - begun) / 60
        progress = args.from_progress + (1 - args.from_progress) * minutes / args.minutes
        if progress >= 1:
            break
        state[1] = progress
        batch = queue.get()
        rate = schedule(progress, warm=0.02, decay=args.decay)
        rate *= min(1.0, (step + 1) / 40)
        probe = args.probe if args.stage == "lists" else args.probe * max(0.1, 1 - progress)
        recent.append(trainer.step(batch, probe=probe, rate=rate))
        seen += batch["ids"].size
        step += 1
        if step % 25 == 0:
            mean = {k: round(float(np.mean([r[k] for r in recent if k in r])), 4) for k in recent[-1]}
            speed = int(seen / (time.time() - begun))
            print(
                json.dumps({"step": step, "min": round(minutes, 1), "level": int(state[0]), "tok/s": speed} | mean),
                flush=True,
            )
            if args.stage == "lists" and mean["number"] >= 0.93 and step - level_since >= 25:
                if int(state[0]) == len(LEVELS) - 1:
                    if args.until_learnt and mean["copy"] > 0.9:
                        break
                else:
                    state[0] += 1
                    level_since = step
            recent = []
        if step % 200 == 0:
            torch.save(trainer.state(averaged=False), work / f"{args.stage}.pt")
            torch.save(trainer.state(averaged=True), work / f"{args.stage}.average.pt")
    torch.save(trainer.state(averaged=False), work / f"{args.stage}.pt")
    torch.save(trainer.state(averaged=True), work / f"{args.stage}.average.pt")
    worker.kill()
    if args.out:
        export(trainer.state(averaged=True), trainer.network.shape, tokens, Path(args.out))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="/tmp/demo_model")
    parser.add_argument("--stage", choices=("lists", "answers"), default="lists")
    parser.add_argument("--start", help="weights to start from")
    parser.add_argument("--out", help="folder of the finished checkpoint")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--decay", type=float, default=0.3)
    parser.add_argument("--probe", type=float, default=1.0)
    parser.add_argument("--from-progress", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--until-learnt", action=argparse.BooleanOptionalAction, default=True)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
