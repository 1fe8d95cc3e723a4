"""The one token stream: prompt in chunks, tokens one by one (and what a grammar forces at once), chunks of text out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from minicpm_core.answers import Answer
from minicpm_core.memory import PREFILL_CHUNK
from minicpm_core.types import Chunk
from minicpm_core.vision import Cancelled


def generate_chunks(
    model: Any, prompt_ids: list[int], pictures: Any, answer: Answer, cancelled: threading.Event
) -> Iterator[Chunk]:
    """Yield the answer's chunks; ends early, without a last chunk, when `cancelled` is set."""
    import torch
    from transformers import DynamicCache

    with torch.inference_mode():
        tokens = answer.begin()
        cache = DynamicCache(config=model.config)
        prompt = {"input_ids": torch.tensor([prompt_ids], device=model.device)}
        skipped = 0  # positions that pictures take beyond their tokens
        if pictures is not None:
            try:
                prompt, skipped = model.prefill(prompt["input_ids"], pictures, cancelled)
            except Cancelled:
                return
        for start in range(0, len(prompt_ids), PREFILL_CHUNK):
            if cancelled.is_set():
                return
            part = {name: take_tokens(name, values, start, PREFILL_CHUNK) for name, values in prompt.items()}
            logits = model(**part, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        del prompt
        yield from answer.read(tokens)
        while not answer.ended:
            if cancelled.is_set():
                return
            if tokens:
                part = {"input_ids": torch.tensor([tokens], device=model.device)}
                if skipped:
                    first = cache.get_seq_length() + skipped
                    part["position_ids"] = torch.arange(first, first + len(tokens), device=model.device)[None]
                logits = model(**part, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            tokens, logprobs = answer.choose(logits[0, -1])
            yield from answer.read(tokens, logprobs)
    if not cancelled.is_set():
        yield answer.last()


def take_tokens(name: str, values: Any, start: int, count: int) -> Any:
    """Return `count` tokens of a model input; tokens are the second dimension, of position ids the last."""
    return values[..., start : start + count] if name == "position_ids" else values[:, start : start + count]
