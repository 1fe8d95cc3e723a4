"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import os
import re

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(size: int | str) -> int:
    """Return the bytes that "4GiB", "500 MB" or a number stand for."""
    if isinstance(size, int):
        value = size
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?b)?\s*", size.lower())
        if not match or (match[2] or "b") not in _UNITS:
            raise ValueError(f'memory size {size!r} cannot be read; accepted: bytes, or such as "4GiB" or "3500MB"')
        value = int(float(match[1]) * _UNITS[match[2] or "b"])
    if value <= 0:
        raise ValueError(f"memory size {size!r} must be more than zero")
    return value


def default_memory_limit() -> str | None:
    """Return the environment variable MINICPM_MEMORY_LIMIT, None where it is not set or empty.

    Raises:
        ValueError: it is no size.
    """
    size = os.environ.get("MINICPM_MEMORY_LIMIT") or None
    try:
        if size is not None:
            parse_bytes(size)
    except ValueError as error:
        raise ValueError(f"the environment variable MINICPM_MEMORY_LIMIT: {error}") from None
    return size


def gib(size: int) -> str:
    """Return a size for people; in MiB where there would be too few digits."""
    return f"{size / 2**30:.2f} GiB" if size >= 0.095 * 2**30 else f"{size / 2**20:.1f} MiB"
