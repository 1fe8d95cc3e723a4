"""How 4-bit codes lie in memory: in rows, as files have them, and in the order of bitsandbytes' CPU kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 32
"""Rows of the matrix that the kernel computes together."""


def in_rows(codes: Tensor) -> Tensor:
    """Return codes [rows, columns] two to a byte, the first in the upper half: [rows, columns / 2]."""
    pairs = codes.view(codes.shape[0], -1, 2)
    return (pairs[..., 0] << 4) | pairs[..., 1]


def for_kernel(codes: Tensor) -> Tensor:
    """Return codes [rows, columns] in the kernel's order, [rows, columns / 2] bytes.

    Of 32 rows, row r and row r + 16 share a byte, the former in its lower half; two columns of 16 such pairs follow
    one another, then the next two columns.
    """
    import torch

    rows, columns = codes.shape
    halves = codes.view(rows // ROWS, 2, ROWS // 2, columns)
    pairs = (halves[:, 1] << 4).bitwise_or_(halves[:, 0]).view(torch.int16)
    return pairs.transpose(1, 2).contiguous().view(torch.uint8).view(rows, columns // 2)


def rows_of_kernel(packed: Tensor) -> Tensor:
    """Return in rows what is in the kernel's order: the reverse of `for_kernel`, two codes to a byte."""
    import torch

    rows, half = packed.shape
    pairs = packed.view(torch.int16).view(rows // ROWS, half, ROWS // 2).transpose(1, 2).contiguous()
    out = torch.empty(rows // ROWS, 2, ROWS // 2, half, dtype=torch.uint8)
    odd = (pairs >> 8).bitwise_and_(15)
    out[:, 0] = (pairs << 4).bitwise_or_(odd)  # a byte keeps the lower eight bits
    odd = torch.bitwise_right_shift(pairs, 12, out=odd).bitwise_and_(15)
    out[:, 1] = pairs.bitwise_and_(0xF0).bitwise_or_(odd)
    return out.view(rows, half)
