"""The linear layer for the CPU: one copy of the weights, two ways of multiplying with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit as StockLinear4bit
from torch import Tensor, nn

from minicpm_core.int4 import layout
from minicpm_core.int4.kernel import dequantize, has_kernel, multiply_few
from minicpm_core.int4.nf4 import (
    BLOCK,
    CHUNK,
    NESTED_BLOCK,
    Scales,
    code,
    nested_code,
    quantize_chunks,
    quantize_scales,
)
from minicpm_core.int4.writing import Kind

FEW = 28
"""Tokens up to which the packed kernel is faster than to dequantise and multiply; measured by benchmarks.int4."""
WORKSPACE = 32 * 2**20
"""Bytes of dequantised weights at a time, per thread."""
_UNPACKED = 512
"""Rows that are unpacked at a time, so that what is computed on the way stays in the cache."""

_workspace = threading.local()


def pack(codes: Tensor, scales: Scales) -> dict[str, Tensor]:
    """Return the parts of a layer: its scales as files have them, and what is computed with.

    "packed" is uint8 [rows, columns / 2], in the kernel's order where the kernel is there, else in rows;
    "kernel_scales" is bfloat16 [columns / 64, rows] and only there with the kernel.

    Args:
        codes: [rows, columns], one to a byte.
        scales: of the codes.
    """
    packed = layout.for_kernel(codes) if has_kernel() else layout.in_rows(codes)
    return {"packed": packed, **_scale_parts(scales, len(codes))}


def _scale_parts(scales: Scales, rows: int) -> dict[str, Tensor]:
    parts = {"absmax": scales.absmax, "nested_absmax": scales.nested_absmax, "offset": scales.offset}
    return parts | ({"kernel_scales": for_kernel(scales, rows)} if has_kernel() else {})


def for_kernel(scales: Scales, rows: int) -> Tensor:
    """Return the scales as the kernel takes them."""
    return scales.expand().view(rows, -1).T.bfloat16().contiguous()


class Linear4bit(StockLinear4bit):  # type: ignore[misc]
    """bitsandbytes' Linear4bit (nf4, double quantisation) for inference on the CPU.

    A few tokens are multiplied by bitsandbytes' kernel; for more, the weights are dequantised into a workspace. The
    state dict is bitsandbytes' own. The layer stays where it is and as it is: `to` moves or converts its bias only.
    """

    weight: Any  # None until `set_parts`, so that nothing is asked for or made in its place
    absmax: Tensor
    nested_absmax: Tensor
    offset: Tensor
    kernel_scales: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool, dtype: Any) -> None:
        with torch.device("meta"):
            super().__init__(in_features, out_features, bias, compute_dtype=dtype, quant_type="nf4")
        self.weight = None
        for name in ("absmax", "nested_absmax", "offset", "kernel_scales"):
            self.register_buffer(name, None, persistent=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (outputs) and columns (inputs)."""
        return self.out_features, self.in_features

    def kinds(self) -> dict[str, Kind]:
        """Return dtype and shape of each part."""
        rows, columns = self.shape
        blocks = rows * columns // BLOCK
        kinds: dict[str, Kind] = {
            "packed": ("U8", (rows, columns // 2)),
            "absmax": ("U8", (blocks,)),
            "nested_absmax": ("F32", (-(blocks // -NESTED_BLOCK),)),
            "offset": ("F32", ()),
        }
        return kinds | ({"kernel_scales": ("BF16", (columns // BLOCK, rows))} if has_kernel() else {})

    def quantize(self, weight: Tensor, out: Mapping[str, Tensor]) -> None:
        """Write the parts for a matrix to `out`; ValueError where a weight is not finite."""
        rows, columns = self.shape
        at_once = max(CHUNK // (columns * layout.ROWS), 1) * layout.ROWS
        absmax = torch.empty(rows * columns // BLOCK)
        for start, codes, scale in quantize_chunks(weight, self.compute_dtype, at_once * columns):
            absmax[start // BLOCK : start // BLOCK + len(scale)] = scale
            part = codes.view(-1, columns)
            first = start // columns
            out["packed"][first : first + len(part)] = layout.for_kernel(part) if has_kernel() else layout.in_rows(part)
        scales = quantize_scales(absmax)
        for name, tensor in _scale_parts(scales, rows).items():
            out[name].copy_(tensor)

    def set_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Compute with these from now on."""
        self.weight = nn.Parameter(parts["packed"], requires_grad=False)
        self.weight.compress_statistics, self.weight.quant_type = True, "nf4"  # which PEFT asks for
        self.absmax, self.nested_absmax, self.offset = parts["absmax"], parts["nested_absmax"], parts["offset"]
        self.kernel_scales = parts.get("kernel_scales")

    def forward(self, x: Tensor) -> Tensor:
        """Return x @ W.T + bias in the dtype of x."""
        kernel_scales = self.kernel_scales
        if x.requires_grad and torch.is_grad_enabled():
            weight = x.new_empty(self.out_features, self.in_features)
            self._dequantize(weight, 0)
            return nn.functional.linear(x, weight, self._bias(x))
        if kernel_scales is not None and x.numel() <= FEW * self.in_features:
            rows = x.reshape(-1, self.in_features).to(torch.bfloat16).contiguous()
            out = multiply_few(rows, self.weight, kernel_scales).to(x.dtype)
        else:
            out = self._multiply_many(x.reshape(-1, self.in_features))
        if (bias := self._bias(x)) is not None:
            out += bias
        return out.view(*x.shape[:-1], self.out_features)

    def dequantize(self, dtype: Any = None) -> Tensor:
        """Return the weights [rows, columns], equal to bitsandbytes' in every bit."""
        weight = torch.empty(self.out_features, self.in_features, dtype=dtype or self.compute_dtype)
        self._dequantize(weight, 0)
        return weight

    def _multiply_many(self, x: Tensor) -> Tensor:
        dtype = torch.bfloat16 if self.kernel_scales is not None else x.dtype
        rows = x.to(dtype)
        at_once = max(WORKSPACE // (self.in_features * dtype.itemsize) // layout.ROWS, 1) * layout.ROWS
        if self.out_features <= at_once:
            weight = _take_workspace(self.out_features, self.in_features, dtype)
            self._dequantize(weight, 0)
            return nn.functional.linear(rows, weight).to(x.dtype)
        out = x.new_empty(len(x), self.out_features)
        for start in range(0, self.out_features, at_once):
            weight = _take_workspace(min(at_once, self.out_features - start), self.in_features, dtype)
            self._dequantize(weight, start)
            out[:, start : start + len(weight)] = nn.functional.linear(rows, weight)
        return out

    def _dequantize(self, out: Tensor, first: int) -> None:
        """Write the weights from row `first` on, as many as `out` has."""
        absmax = self._scales().expand()
        for start in range(0, len(out), _UNPACKED):
            target = out[start : start + _UNPACKED]
            place = first + start
            packed = self.weight[place : place + len(target)]
            rows = packed if self.kernel_scales is None else layout.rows_of_kernel(packed)
            dequantize(rows, absmax[place * self.in_features // BLOCK :], target)

    def _scales(self) -> Scales:
        return Scales(self.absmax, self.nested_absmax, self.offset)

    def _bias(self, x: Tensor) -> Tensor | None:
        return None if self.bias is None else self.bias.to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Linear4bit:
        if self.bias is not None:
            self.bias.data = fn(self.bias.data)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if self.bias is not None:
            destination[prefix + "bias"] = self.bias if keep_vars else self.bias.detach()
        if self.weight is None:
            return
        rows = self.weight.detach() if self.kernel_scales is None else layout.rows_of_kernel(self.weight.detach())
        for name, tensor in stored_tensors(rows, self._scales(), self.compute_dtype).items():
            destination[prefix + name] = tensor


def stored_tensors(in_rows: Tensor, scales: Scales, dtype: Any) -> dict[str, Tensor]:
    """Return a layer's tensors by the names that bitsandbytes stores them under.

    Args:
        in_rows: uint8 [rows, columns / 2].
        scales: those of the weights.
        dtype: of the weights before they were quantised.
    """
    outer = QuantState(scales.nested_absmax, blocksize=NESTED_BLOCK, code=nested_code(), dtype=torch.float32)
    state = QuantState(
        scales.absmax,
        shape=torch.Size((in_rows.shape[0], in_rows.shape[1] * 2)),
        dtype=dtype,
        blocksize=BLOCK,
        code=code().clone(),  # safetensors stores no tensor twice
        quant_type="nf4",
        offset=scales.offset,
        state2=outer,
    )
    return {"weight": in_rows.view(-1, 1)} | {f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}


def _take_workspace(rows: int, columns: int, dtype: Any) -> Tensor:
    """Return this thread's workspace as a matrix; what it held is overwritten."""
    held: Tensor | None = getattr(_workspace, "held", None)
    size = rows * columns * dtype.itemsize
    if held is None or held.numel() < size:
        _workspace.held = held = torch.empty(size, dtype=torch.uint8)
    return held[:size].view(dtype).view(rows, columns)
