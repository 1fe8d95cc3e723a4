"""Log likelihoods of a text's tokens, from which its perplexity follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

_PIECE = 512
_LOGITS_BYTES = 128 * 2**20
_ROWS = 16
"""Rows of logits that are made float32 at a time."""


def log_likelihoods(model: Any, ids: Sequence[int], *, window: int, stride: int, piece: int = _PIECE) -> list[float]:
    """Return the natural logarithm of the probability of each token but the first, given those before it.

    Windows of `window` tokens move on by `stride`, and of each only the tokens are scored that the one before has not
    reached, so that all but those of the first have `window - stride` tokens before them at least: the strided sliding
    window of "Perplexity of fixed-length models" (https://huggingface.co/docs/transformers/perplexity).

    Args:
        model: a causal language model of transformers.
        ids: token ids, two at least.
        window: tokens that the model sees at a time at most.
        stride: from 1 to window - 1.
        piece: tokens computed at once at most, and no more than fit into 128 MiB of logits; it does not change the
            result. Where how far positions turn depends on the length read, a window is computed as a whole.

    Raises:
        ValueError: `stride` is out of range, or the model's logits are not numbers.
    """
    import torch

    from minicpm_core.prefix import Context, Prefixes

    if not 1 <= stride < window:
        raise ValueError(f"stride is {stride}; accepted: 1 to {window - 1}, less than the window of {window} tokens")
    piece = _fit_piece(model, window, piece)
    scored: list[float] = []
    for begin, first, end in sliding_windows(len(ids), window, stride):
        context = Context(model, Prefixes(0))
        for start in range(begin, end - 1, piece):
            stop = min(start + piece, end - 1)
            rows = stop - max(start, first - 1)
            logits = context.read(list(ids[start:stop]), rows=max(rows, 1))
            targets = torch.tensor(ids[stop - rows + 1 : stop + 1] if rows > 0 else [], device=logits.device)
            for row in range(0, len(targets), _ROWS):
                some = torch.nn.functional.cross_entropy(
                    logits[row : row + _ROWS].float(), targets[row : row + _ROWS], reduction="none"
                )
                scored += (-some).tolist()
    if not all(map(math.isfinite, scored)):
        raise ValueError("the model's logits are not finite numbers; its weights or its number format are at fault")
    return scored


def sliding_windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield each window's begin, first scored token and end; every token but the first is scored once."""
    scored = 1
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        yield begin, scored, end
        if end == length:
            return
        scored = end


def _fit_piece(model: Any, window: int, most: int) -> int:
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    varies = rope.get("rope_type") == "dynamic" or rope.get("short_factor") != rope.get("long_factor")
    if varies and window > original:
        return window
    fitting = _LOGITS_BYTES // (int(config.vocab_size) * int(model.dtype.itemsize))
    return max(min(most, fitting), 1)
