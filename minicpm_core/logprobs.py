"""Log probabilities of drawn tokens, on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minicpm_core.types import TokenLogprob


def read_logprob(logits: Any, token: int, count: int, read_bytes: Callable[[int], bytes]) -> TokenLogprob:
    """Return the log probability of `token` and of the `count` likeliest in its place.

    Args:
        logits: of one position, [vocabulary], as the model gives them.
        token: the drawn token's id.
        count: how many of the likeliest to report.
        read_bytes: returns the bytes of a token.
    """
    import torch

    every = torch.log_softmax(logits.float(), dim=-1)
    values, ids = every.topk(min(count, every.numel()))
    top = tuple(_entry(i, value, read_bytes) for i, value in zip(ids.tolist(), values.tolist(), strict=True))
    return _entry(token, float(every[token]), read_bytes, top)


def _entry(
    token: int, value: float, read_bytes: Callable[[int], bytes], top: tuple[TokenLogprob, ...] = ()
) -> TokenLogprob:
    data = read_bytes(token)
    return TokenLogprob(data.decode("utf-8", "replace"), token, value, data, top)
