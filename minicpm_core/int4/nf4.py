"""nf4 with double quantisation (Dettmers et al. 2023, section 3), byte for byte as bitsandbytes computes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 64
"""Weights of a row that share a scale."""
NESTED_BLOCK = 256
"""Scales that share a scale of their own."""
CHUNK = 2**18
"""Weights that are quantised at a time: what is computed on the way stays in the second-level cache."""
_SHIFT = 7
_SIXTEENS = 0x1010101010101010
_TWO = 0x40000000
"""The bits of 2.0 in float32; a value of -1 to 1 plus 3 lies between 2 and 4, where all numbers are equally spaced."""


@dataclass(frozen=True)
class Scales:
    """The scale of each block of weights, itself in 8 bits.

    Args:
        absmax: uint8, one per block, row by row.
        nested_absmax: float32, one per 256 of `absmax`.
        offset: float32 scalar that is added to all.
    """

    absmax: Tensor
    nested_absmax: Tensor
    offset: Tensor

    def expand(self) -> Tensor:
        """Return the scales in float32, as bitsandbytes does (`dequantize_blockwise` and the offset)."""
        import torch

        values: Tensor = torch.ops.bitsandbytes.dequantize_blockwise.default(
            self.absmax, self.nested_absmax, nested_code(), NESTED_BLOCK, torch.float32
        )
        return values.add_(self.offset)


@cache
def code() -> Tensor:
    """Return the 16 values that a weight can have beside its scale."""
    from bitsandbytes.functional import get_4bit_type

    return get_4bit_type("nf4", device="cpu")  # type: ignore[no-any-return]


@cache
def nested_code() -> Tensor:
    """Return the 256 values that a scale can have beside its own."""
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map().float()  # type: ignore[no-any-return]


@cache
def _bounds() -> Tensor:
    """Return the middle between neighbouring values."""
    return (code()[:-1] + code()[1:]) / 2


@cache
def _table() -> Tensor:
    """Return the code for each of 65,537 equal parts of -1 to 1; 16 and more where a bound is near or in the part."""
    import torch

    parts = torch.arange((0x800000 >> _SHIFT) + 1)
    middle = (parts + 0.5) * 2.0 ** (_SHIFT - 22) - 1
    table = torch.bucketize(middle, _bounds().double()).to(torch.uint8)
    for shift in (-(2.0**-20), 0.0, 2.0**-20):
        near = ((_bounds().double() + shift + 1) * 2.0 ** (22 - _SHIFT)).long()
        table[near] = 16
    return table


def quantize_codes(weight: Tensor, dtype: Any) -> tuple[Tensor, Tensor]:
    """Return the codes (uint8, 0 to 15, shaped as the weight) and the scale of each block (float32).

    The codes are those of `bitsandbytes.functional.quantize_4bit` for the weight in `dtype`.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    import torch

    codes = torch.empty(weight.numel(), dtype=torch.uint8)
    absmax = torch.empty(weight.numel() // BLOCK)
    for start, part, scale in quantize_chunks(weight, dtype, CHUNK):
        codes[start : start + len(part)] = part
        absmax[start // BLOCK : start // BLOCK + len(scale)] = scale
    return codes.view(weight.shape), absmax


def quantize_chunks(weight: Tensor, dtype: Any, size: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the first place, the codes [size] and the scales [size / 64] of so many weights at a time.

    A table gives the codes at once except within a millionth of a bound between two, where they are searched for as
    bitsandbytes does. The codes that are yielded are overwritten by the next ones: what is computed on the way always
    lies in the same memory, since the allocator's would come from the system anew each time.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    import torch

    flat = weight.reshape(-1)
    size = min(size, flat.numel())
    codes = torch.empty(size, dtype=torch.uint8)
    scaled, shifted = torch.empty(2, size)
    for start in range(0, flat.numel(), size):
        blocks = flat[start : start + size].to(dtype).view(-1, BLOCK)
        scale = magnitude(blocks).float()
        if not scale.isfinite().all():
            raise ValueError("not finite")
        count = blocks.numel()
        part, values, sums = codes[:count], scaled[:count].view(-1, BLOCK), shifted[:count]
        values.copy_(blocks).mul_((1.0 / scale.clamp(min=1e-38)).view(-1, 1))
        torch.add(values.view(-1), 3.0, out=sums)
        places = sums.view(torch.int32).sub_(_TWO).bitwise_right_shift_(_SHIFT)
        torch.index_select(_table(), 0, places, out=part)
        unsure = (part.view(torch.int64) & _SIXTEENS).nonzero().view(-1)  # eight codes at a time
        exact = values.view(-1, 8)[unsure]
        part.view(-1, 8)[unsure] = torch.bucketize(exact, _bounds(), out_int32=True).to(torch.uint8)
        yield start, part, scale


def magnitude(blocks: Tensor) -> Tensor:
    """Return the largest magnitude in each row; NaN counts as the largest."""
    import torch

    whole = torch.int32 if blocks.element_size() == 4 else torch.int16
    bits = blocks.view(whole) & torch.iinfo(whole).max  # without the sign, numbers sort as whole numbers do
    return bits.amax(-1).view(blocks.dtype)


def quantize_scales(absmax: Tensor) -> Scales:
    """Return the scales in 8 bits, as `bitsandbytes.functional.quantize_4bit` does with `compress_statistics`."""
    import torch

    offset = absmax.mean()
    small, nested = torch.ops.bitsandbytes.quantize_blockwise.default(absmax - offset, nested_code(), NESTED_BLOCK)
    return Scales(small, nested, offset)
