"""The output head, and embeddings that are tied to it, in 8 bits: whole numbers, and a scale per row of the matrix.

In 16 bits the head is the largest part of what is read for a token, and what a model of a billion parameters with a
vocabulary of 130,000 waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from minicpm_core.int4.nf4 import CHUNK, magnitude
from minicpm_core.int4.writing import Kind, dtype_of

FEW = 4
"""Tokens up to which torch's kernel for 8-bit weights is used, whose time grows with every token."""
SOME = 32
"""Tokens up to which whole numbers are multiplied; for more, the weights are converted in parts.

Measured on a head of 130,560 x 1,536, one thread, milliseconds, for 1, 4, 8, 16 and 32 tokens: the kernel 25, 40, 78,
156, 312; whole numbers on both sides 34, 36, 44, 56, 75; converted in parts 75, 76, 77, 79, 92; the head in bfloat16
39, 41, 42, 43, 46.
"""
_CONVERTED = 2048
"""Rows that are converted at a time, so that they stay in the cache."""
_LARGEST = 127
SCALE = "scalar_embed_scale"
"""Where transformers' embeddings that multiply their vectors have the number."""
COLUMNS = 64
"""The kernel reads whole vectors, beyond the end of what is no multiple."""


def suits(columns: int) -> bool:
    """Tell whether a head with so many columns is computed with in 8 bits here."""
    return columns % COLUMNS == 0 and has_kernel()


def quantize_rows(weight: Tensor, dtype: Any, out: Mapping[str, Tensor]) -> None:
    """Write the parts of `EightBit` for a matrix in `dtype` to `out`: symmetric, the largest of a row is 127.

    The scales are bfloat16's numbers, so that a kernel that takes them in bfloat16 multiplies with the same ones.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    step = max(CHUNK // weight.shape[1], 1)
    scaled = torch.empty(step, weight.shape[1])
    for start in range(0, len(weight), step):
        part = weight[start : start + step].to(dtype)
        largest = magnitude(part).float()
        if not largest.isfinite().all():
            raise ValueError("not finite")
        scale = (largest / _LARGEST).clamp_(min=1e-30).bfloat16().float()
        out["scales"][start : start + step] = scale
        values = scaled[: len(part)].copy_(part).mul_(scale.reciprocal()[:, None])
        out["weight"][start : start + step] = values.round_()


class EightBit(nn.Module):
    """What the head and the embeddings have in common: int8 [rows, columns], and float32 scales [rows].

    In the state dict it is one 16-bit matrix (what transformers expects); such a one is quantised when it is loaded.
    The module stays where it is and as it is: `to` leaves it alone.
    """

    weight: Any  # None until `set_parts`, so that nothing is asked for or made in its place
    scales: Tensor
    dtype: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (the vocabulary) and columns (the hidden size)."""
        raise NotImplementedError

    def kinds(self) -> dict[str, Kind]:
        """Return dtype and shape of each part."""
        return {"weight": ("I8", self.shape), "scales": ("F32", self.shape[:1])}

    def quantize(self, weight: Tensor, out: Mapping[str, Tensor]) -> None:
        """Write the parts for a matrix to `out`; ValueError where a weight is not finite."""
        quantize_rows(weight, self.dtype, out)

    def set_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Compute with these from now on."""
        self.weight = nn.Parameter(parts["weight"], requires_grad=False)
        self.scales = parts["scales"]

    def dequantize(self) -> Tensor:
        """Return the matrix [rows, columns] in the dtype that it had."""
        weight: Tensor = (self.weight * self.scales[:, None]).to(self.dtype)
        return weight

    def _prepare(self, dtype: Any) -> None:
        self.weight, self.dtype = None, dtype
        self.register_buffer("scales", None, persistent=False)
        self.requires_grad_(False)
        self._is_hf_initialized = True  # transformers fills what lacks this with random numbers

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EightBit:
        return self

    def __deepcopy__(self, memo: Any) -> EightBit:
        raise ValueError(
            "an output head in 8 bits cannot be copied, which an adapter with modules_to_save asks for; load it with "
            'quantization="none" or "int8", or merge it into the unquantised checkpoint first'
        )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if self.weight is not None:
            destination[prefix + "weight"] = self.dequantize()

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        if (weight := state.get(prefix + "weight")) is None:
            args[2].append(prefix + "weight")
        elif weight.shape != self.shape:
            args[4].append(f"{prefix}weight has the shape {list(weight.shape)}, and {list(self.shape)} is needed")
        else:
            parts = {name: torch.empty(shape, dtype=dtype_of(kind)) for name, (kind, shape) in self.kinds().items()}
            self.quantize(weight, parts)
            self.set_parts(parts)


class Head8bit(EightBit, nn.Linear):
    """The output head for inference on the CPU.

    Args:
        in_features: columns.
        out_features: rows.
        dtype: of the weights before they were quantised.
        tied: it has the embeddings' weights, which are stored under their name, until it is given others.
    """

    def __init__(self, in_features: int, out_features: int, dtype: Any, *, tied: bool = False) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias=False, device="meta")
        self._prepare(dtype)
        self.tied = tied

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (the vocabulary) and columns (the hidden size)."""
        return self.out_features, self.in_features

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of x [..., hidden] in its dtype."""
        rows = x.reshape(-1, self.in_features)
        if x.requires_grad and torch.is_grad_enabled():
            out: Tensor = rows @ (self.weight * self.scales[:, None]).to(rows.dtype).T
        elif rows.dtype is torch.bfloat16 and len(rows) <= FEW and suits(self.in_features):
            out = torch._weight_int8pack_mm(rows.contiguous(), self.weight, self.scales.bfloat16())
        elif len(rows) <= SOME and multiplies_whole_numbers():
            out = self._multiply_whole(rows.float()).to(rows.dtype)
        else:
            out = rows.new_empty(len(rows), self.out_features)
            for start in range(0, self.out_features, _CONVERTED):
                part, scales = self.weight[start : start + _CONVERTED], self.scales[start : start + _CONVERTED]
                out[:, start : start + len(part)] = (rows @ part.to(rows.dtype).T) * scales
        return out.view(*x.shape[:-1], self.out_features)

    def set_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Compute with these from now on."""
        super().set_parts(parts)
        self.tied = False

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if not self.tied:
            super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        if not self.tied or prefix + "weight" in state:
            super()._load_from_state_dict(state, prefix, *args)

    def _multiply_whole(self, x: Tensor) -> Tensor:
        """Return x @ W.T, x [tokens, hidden] taken as two whole numbers, the second for what the first leaves over."""
        scale = (x.abs().amax(-1, keepdim=True) / _LARGEST).clamp_(min=1e-30)
        whole = (x / scale).round_()
        finer = scale / (2 * _LARGEST)
        rest = ((x - whole * scale) / finer).round_().clamp_(-_LARGEST, _LARGEST)
        both = torch._int_mm(torch.cat([whole, rest]).to(torch.int8), self.weight.T)
        out: Tensor = (both[: len(x)] * scale).add_(both[len(x) :] * finer)
        return out.mul_(self.scales)


class Embedding8bit(EightBit, nn.Embedding):
    """Embeddings that share their weights with a head.

    Args:
        like: the embeddings that it stands for; a class of their own may multiply the vectors (`SCALE`).
        head: takes every weight that is set here.
        dtype: of the vectors.
    """

    def __init__(self, like: nn.Embedding, head: Head8bit, dtype: Any) -> None:
        nn.Embedding.__init__(self, like.num_embeddings, like.embedding_dim, like.padding_idx, device="meta")
        self._prepare(dtype)
        self._head = [head]  # in a list, so that it is no part of this module
        self._factor = float(getattr(like, SCALE, 1.0))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (the vocabulary) and columns (the hidden size)."""
        return self.num_embeddings, self.embedding_dim

    def set_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Compute with these from now on, in the head too."""
        super().set_parts(parts)
        head = self._head[0]
        head.weight, head.scales = self.weight, self.scales

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of token ids, [..., hidden]."""
        vectors: Tensor = (self.weight[ids] * self.scales[ids].unsqueeze(-1)).to(self.dtype)
        return vectors if self._factor == 1 else vectors * torch.tensor(self._factor, dtype=self.dtype)


@cache
def has_kernel() -> bool:
    """Tell whether this torch has the kernel for 8-bit weights on the CPU, and it computes what is meant."""
    x = torch.arange(64.0).sub(30).view(1, 64).bfloat16()
    weight = (torch.arange(32 * 64) * 7 % 255 - 127).to(torch.int8).view(32, 64)
    scales = torch.arange(1.0, 33.0)
    try:
        found = torch._weight_int8pack_mm(x, weight, scales.bfloat16())
    except (AttributeError, RuntimeError):
        return False
    return bool(torch.allclose(found.float(), x.float() @ weight.float().T * scales, rtol=0.01, atol=1.0))


@cache
def multiplies_whole_numbers() -> bool:
    """Tell whether this torch multiplies 8-bit numbers exactly; processors without VNNI add with 16 bits."""
    largest = torch.full((34, 64), _LARGEST, dtype=torch.int8)
    try:
        return all(bool((torch._int_mm(largest[:n], largest.T) == 64 * _LARGEST**2).all()) for n in (2, len(largest)))
    except (AttributeError, RuntimeError):
        return False
