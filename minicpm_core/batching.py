"""Several answers at once: each step reads a token of every row, and rows that are finished leave."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from minicpm_core.answers import Answer, Request
from minicpm_core.batch_caches import open_cache
from minicpm_core.memory_plan import PREFILL_CHUNK
from minicpm_core.types import Chunk


class _Row:
    def __init__(self, place: int, answer: Answer) -> None:
        self.place, self.answer = place, answer
        self.text = Chunk()
        self.waiting: list[int] = []  # tokens that are chosen and not yet given to the model
        self.begun = answer.begin()
        self.read(self.begun)

    def read(self, tokens: Sequence[int], logprobs: Any = ()) -> None:
        for chunk in self.answer.read(tokens, logprobs):
            self.text += chunk

    def step(self, logits: Any) -> None:
        """Choose the next tokens where none are waiting."""
        if not self.waiting:
            self.waiting, logprobs = self.answer.choose(logits)
            self.read(self.waiting, logprobs)


def group_requests(requests: Sequence[Request], batch_size: int, tokens: int) -> Iterator[list[int]]:
    """Yield the places of requests that run together: of similar length, and whose caches fit into the memory.

    Args:
        requests: in the order of their places.
        batch_size: requests in a group at most.
        tokens: that the caches of a group may hold; 0 runs the requests one by one, in their order.

    Raises:
        ValueError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; accepted: 1 or more")
    if not tokens:
        yield from ([n] for n in range(len(requests)))
        return
    group: list[int] = []
    for n in sorted(range(len(requests)), key=lambda n: len(requests[n].prompt_ids)):
        longest = len(requests[n].prompt_ids) + max(requests[m].sampling.max_new_tokens or 0 for m in [*group, n])
        if group and (len(group) == batch_size or longest * (len(group) + 1) > tokens):
            yield group
            group = []
        group.append(n)
    if group:
        yield group


def generate_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    cancelled: threading.Event,
    *,
    prefill_chunk: int = PREFILL_CHUNK,
) -> Iterator[tuple[int, Chunk]]:
    """Yield (place, whole answer) as the answers are finished.

    Args:
        model: a language model of transformers; it must take position ids.
        prompts: token ids of each prompt.
        answers: the answers in the making, one for each prompt.
        cancelled: ends the batch early.
        prefill_chunk: tokens per forward pass over the prompts.
    """
    import torch

    with torch.inference_mode():
        rows = [_Row(n, answer) for n, answer in enumerate(answers)]
        cache = open_cache(model, prefill_chunk)
        logits: Any = None
        for read in cache.read_prompts(prompts, [row.begun for row in rows]):
            if cancelled.is_set():
                return
            logits = read
        while True:
            kept = []
            for n, row in enumerate(rows):
                if not row.answer.ended:
                    row.step(logits[n])
                if row.answer.ended:
                    yield row.place, row.text + row.answer.last()
                else:
                    kept.append(n)
            if not kept or cancelled.is_set():
                return
            if len(kept) < len(rows):
                rows = [rows[n] for n in kept]
                cache.keep(kept)
            logits = cache.read([row.waiting.pop(0) for row in rows])
