"""Several answers at once: prompts padded to one batch, rows that are finished leave it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from minicpm_core.answers import Answer
from minicpm_core.memory import PREFILL_CHUNK
from minicpm_core.types import Chunk


class _Row:
    def __init__(self, place: int, prompt_ids: Sequence[int], answer: Answer) -> None:
        self.place, self.answer = place, answer
        self.text = Chunk()
        self.waiting: list[int] = []  # tokens that are chosen and not yet given to the model
        begun = answer.begin()
        self.ids = [*prompt_ids, *begun]
        self.read(begun)

    def read(self, tokens: Sequence[int], logprobs: Any = ()) -> None:
        for chunk in self.answer.read(tokens, logprobs):
            self.text += chunk

    def step(self, logits: Any) -> None:
        """Choose the next tokens where none are waiting."""
        if not self.waiting:
            self.waiting, logprobs = self.answer.choose(logits)
            self.read(self.waiting, logprobs)


def generate_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Answer],
    cancelled: threading.Event,
    *,
    prefill_chunk: int = PREFILL_CHUNK,
) -> Iterator[tuple[int, Chunk]]:
    """Yield (place, whole answer) as the answers are finished; padding is on the left and masked.

    Args:
        model: a language model of transformers; it must take an attention mask and position ids.
        prompts: token ids of each prompt.
        answers: the answers in the making, one for each prompt.
        cancelled: ends the batch early.
        prefill_chunk: tokens per forward pass over the prompts, of all rows together.
    """
    import torch
    from transformers import DynamicCache

    with torch.inference_mode():
        rows = [_Row(n, ids, answer) for n, (ids, answer) in enumerate(zip(prompts, answers, strict=True))]
        width = max(len(row.ids) for row in rows)
        pads = torch.tensor([width - len(row.ids) for row in rows], device=model.device)
        ids = torch.tensor([[0] * (width - len(row.ids)) + row.ids for row in rows], device=model.device)
        cache = DynamicCache(config=model.config)
        chunk = max(prefill_chunk // len(rows), 32)
        for start in range(0, width, chunk):
            if cancelled.is_set():
                return
            logits = _forward(model, ids[:, start : start + chunk], start, pads, cache)
        while True:
            kept = []
            for n, row in enumerate(rows):
                if not row.answer.ended:
                    row.step(logits[n, -1])
                if row.answer.ended:
                    yield row.place, row.text + row.answer.last()
                else:
                    kept.append(n)
            if not kept or cancelled.is_set():
                return
            if len(kept) < len(rows):
                rows = [rows[n] for n in kept]
                chosen = torch.tensor(kept, device=model.device)
                cache.batch_select_indices(chosen)
                pads = pads[chosen]
            ids = torch.tensor([[row.waiting.pop(0)] for row in rows], device=model.device)
            logits = _forward(model, ids, width, pads, cache)
            width += 1


def _forward(model: Any, ids: Any, start: int, pads: Any, cache: Any) -> Any:
    """Return the logits of the last position; a row's positions begin with 0 behind its padding."""
    import torch

    places = torch.arange(start + ids.shape[1], device=ids.device)[None]
    mask = (places >= pads[:, None]).long()
    positions = (places[:, start:] - pads[:, None]).clamp(min=0)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
