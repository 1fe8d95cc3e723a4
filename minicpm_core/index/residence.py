"""Which models lie in memory together: one goes before the next comes where both are beyond the limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def release_unless_fitting(wanted: Any, others: Sequence[Any], limit: int | None) -> bool:
    """Release the other models unless they are known to fit beside the wanted one; tell whether they were released.

    Args:
        wanted: the model that is used next; its size is `memory_bytes`, which may be None as long as it is not known.
        others: models with `release()` or `close()`; those that have neither stay.
        limit: bytes of all of them together; None releases nothing.
    """
    if limit is None:
        return False
    sizes = [getattr(model, "memory_bytes", None) for model in (wanted, *others)]
    if all(size is not None for size in sizes) and sum(size for size in sizes if size is not None) <= limit:
        return False
    for model in others:
        release = getattr(model, "release", None) or getattr(model, "close", None)
        if callable(release):
            release()
    return True
