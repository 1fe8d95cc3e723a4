"""How fast a model reads a prompt and decodes."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from minicpm_core.prefix import Context, Prefixes

PROMPT_TOKENS = 512
ROUNDS = 3


def measure_speed(
    engine: Any, ids: Sequence[int], prompt_tokens: int | None, decode_tokens: int, *, seed: int
) -> tuple[int, float, float]:
    """Return the prompt's length, and tokens per second of reading it and of decoding, medians of some rounds.

    The tokens are those of a text in random order, also the decoded ones, so that every model has the same work.

    Args:
        engine: of transformers.
        ids: the text's token ids.
        prompt_tokens: of the prompt; None takes 512, or what fits.
        decode_tokens: read one by one behind it.
        seed: of the order.

    Raises:
        ValueError: they do not fit the context window.
    """
    model, decode, chunk = engine.model, decode_tokens, engine._memory.prefill_chunk
    room = engine.context_window - decode
    prompt = min(PROMPT_TOKENS, room) if prompt_tokens is None else prompt_tokens
    if decode < 1 or not 1 <= prompt <= room:
        raise ValueError(
            f"a prompt of {prompt} tokens and {decode} decoded ones do not fit the context window of "
            f"{engine.context_window}; give fewer, or a larger context_window"
        )
    drawn = random.Random(seed).choices(ids[1:], k=prompt + decode)
    seconds: list[tuple[float, float]] = []
    for length in (min(prompt, 32), *[prompt] * ROUNDS):  # the first only wakes what works at first use
        context = Context(model, Prefixes(0))
        started = time.perf_counter()
        for start in range(0, length, chunk):
            context.read(drawn[start : min(start + chunk, length)])
        wait_for(model.device)
        read = time.perf_counter()
        for token in drawn[prompt:]:
            context.read([token])
        wait_for(model.device)
        seconds.append((read - started, time.perf_counter() - read))
    prefill, decoding = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
    return prompt, prompt / prefill, decode / decoding


def wait_for(device: Any) -> None:
    """Return when a device has done what it was given."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
