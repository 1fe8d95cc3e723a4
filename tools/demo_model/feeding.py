"""Draw examples, cut them into batches of similar length, and feed them from a process of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from tools.demo_model.collating import collate
from tools.demo_model.encoding import Encoded, Encoder
from tools.demo_model.tasks import draw

TOKENS_PER_BATCH = 6144
LEVELS = ((2, 4), (2, 6), (3, 6), (3, 8), (4, 10), (5, 12), (5, 16))


def generate(stage: str, level: int, progress: float, encoder: Encoder, rng: Random) -> Encoded:
    """Return one training example of `stage`."""
    if stage == "lists":
        lists, length = LEVELS[level if rng.random() < 0.8 else rng.randint(0, level)]
        return encoder.encode_lists(rng, lists=lists, length=length)
    kind = rng.random()
    if kind < 0.08:  # all words must be found, and in one passage: short, and free of any vocabulary
        return encoder.encode_lists(rng, lists=rng.randint(1, 5), length=rng.randint(4, 9), refusals=0.3)
    if kind < 0.14:  # longer copies of random tokens, so that any text can be copied
        return encoder.encode_lists(rng, lists=rng.randint(1, 3), length=rng.randint(12, 45))
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
