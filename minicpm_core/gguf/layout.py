"""Where the tensors of a GGUF file lie: checked before llama.cpp, which is C++, maps what a damaged file tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALIGNMENT = 32
"""Bytes, where a file tells none."""
_DIMENSIONS = 4
_MOST = 2**40
BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 17: (256, 74), 18: (256, 98),
    19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4),
    27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""Numbers and bytes of a block, by the number of the format (ggml_type in ggml.h, block_* in ggml-common.h).

A format that is not here is newer, and left to llama.cpp.
"""


def read_alignment(metadata: Mapping[str, Any], path: Path) -> int:
    """Return the bytes that tensors begin at multiples of.

    Raises:
        ValueError: it is no power of two, or less than llama.cpp can map.
    """
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    if alignment & (alignment - 1) or not ALIGNMENT <= alignment <= 2**20:  # llama.cpp aborts where it is less
        raise ValueError(
            f"{path} cannot be mapped: general.alignment is {alignment}; a power of two from {ALIGNMENT} to 2**20 is "
            "needed; convert the model again"
        )
    return alignment


def check_layout(
    path: Path, tensors: Mapping[str, tuple[int, ...]], places: Mapping[str, tuple[int, int]], alignment: int
) -> None:
    """Compare what a file's head tells of its tensors with the file.

    Args:
        path: the file.
        tensors: shapes by name, rows first.
        places: by name, the number of a tensor's format and the byte at which it begins.
        alignment: see `read_alignment`.

    Raises:
        ValueError: a shape that cannot be, tensors that overlap, or the file ends within one.
    """
    size = path.stat().st_size
    ends, before = 0, ""
    for name, (kind, start) in sorted(places.items(), key=lambda item: item[1][1]):
        shape = tensors[name]
        if not 1 <= len(shape) <= _DIMENSIONS or not all(1 <= n < _MOST for n in shape) or math.prod(shape) >= _MOST:
            raise _damage(path, name, f"has the shape {shape!r:.100}")
        if start % alignment:
            raise _damage(path, name, f"begins at byte {start:,}, which is no multiple of {alignment}")
        if start < ends:
            raise _damage(path, name, f"lies within {before}")
        if kind not in BLOCKS:
            if start > size:
                raise _damage(path, name, "lies behind the file's end")
            continue
        numbers, count = BLOCKS[kind]
        if shape[-1] % numbers:
            raise _damage(path, name, f"has rows of {shape[-1]} numbers in a format of blocks of {numbers}")
        ends, before = start + math.prod(shape) // numbers * count, name
        if ends > size:
            raise _damage(path, name, f"ends at byte {ends:,}, and the file at {size:,}")


def _damage(path: Path, name: str, what: str) -> ValueError:
    return ValueError(f"{path} is damaged or cut off: the tensor {name!r:.80} {what}; download it again")
