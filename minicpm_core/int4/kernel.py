"""bitsandbytes' own routines on the CPU, called without the layers of Python around them."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

from minicpm_core.int4 import layout
from minicpm_core.int4.nf4 import BLOCK
from minicpm_core.quiet import silence_kernels

if TYPE_CHECKING:
    from torch import Tensor

_DEQUANTIZE = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def multiply_few(x: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    """Return x @ W.T for a few rows of bfloat16, W in the kernel's order.

    Args:
        x: [tokens, columns], contiguous.
        packed: [rows, columns / 2].
        scales: bfloat16, [columns / 64, rows].
    """
    tokens, columns = x.shape
    rows = packed.shape[0]
    out = x.new_empty(tokens, rows)
    _library().gemv_4bit_inference_cpu_nf4_bf16(
        tokens, rows, columns, x.data_ptr(), packed.data_ptr(), scales.data_ptr(), out.data_ptr(), BLOCK, columns, rows
    )
    return out


def dequantize(in_rows: Tensor, absmax: Tensor, out: Tensor) -> None:
    """Write the weights to `out` [rows, columns], as `bitsandbytes.functional.dequantize_4bit` computes them.

    Args:
        in_rows: uint8, [rows, columns / 2].
        absmax: float32, [rows * columns / 64].
        out: contiguous; float32, bfloat16 or float16.
    """
    import torch

    if (library := _library()) is None:
        shape = list(out.shape)
        out.copy_(torch.ops.bitsandbytes.dequantize_4bit.default(in_rows, absmax, BLOCK, "nf4", shape, out.dtype))
        return
    kind = _DEQUANTIZE[str(out.dtype).removeprefix("torch.")]
    routine = getattr(library, f"cdequantize_blockwise_cpu_nf4_{kind}")
    routine(in_rows.data_ptr(), absmax.data_ptr(), out.data_ptr(), BLOCK, *out.shape)


@cache
def has_kernel() -> bool:
    """Tell whether this CPU and this bitsandbytes have the kernel for a few tokens, and it takes the known layout."""
    import torch

    silence_kernels()
    from bitsandbytes.functional import has_avx512bf16

    if _library() is None or not has_avx512bf16():
        return False
    codes = (torch.arange(32 * 64) * 7 % 16).to(torch.uint8).view(32, 64)
    weight = torch.empty(32, 64)
    dequantize(layout.in_rows(codes), torch.ones(32), weight)
    x = torch.ones(2, 64, dtype=torch.bfloat16)
    found = multiply_few(x, layout.for_kernel(codes), torch.ones(1, 32, dtype=torch.bfloat16))
    return bool(torch.allclose(found.float(), x.float() @ weight.T, atol=0.1))


@cache
def _library() -> Any:
    """Return bitsandbytes' library with the types of the routines used here, None where it has others."""
    from bitsandbytes.cextension import lib

    size, pointer = ctypes.c_int64, ctypes.c_void_p
    try:
        library = ctypes.CDLL(lib._lib._name)  # a handle of its own, so that the types set here stay here
        few = library.gemv_4bit_inference_cpu_nf4_bf16
        few.argtypes, few.restype = [size] * 3 + [pointer] * 4 + [size] * 3, None
        for kind in _DEQUANTIZE.values():
            routine = getattr(library, f"cdequantize_blockwise_cpu_nf4_{kind}")
            routine.argtypes, routine.restype = [pointer] * 3 + [size] * 3, None
    except (AttributeError, OSError):
        return None
    return library
