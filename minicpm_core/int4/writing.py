"""A safetensors file that is written tensor by tensor."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

_ALIGNMENT = 64
"""Bytes; where the data begin, so that a mapped tensor lies as the CPU likes it."""
NAMES = {
    "torch.uint8": "U8",
    "torch.int8": "I8",
    "torch.float32": "F32",
    "torch.bfloat16": "BF16",
    "torch.float16": "F16",
}
_SIZES = {"U8": 1, "I8": 1, "F32": 4, "BF16": 2, "F16": 2}

Kind = tuple[str, tuple[int, ...]]
"""The dtype as safetensors names it, and the shape."""


class Layer(Protocol):
    """A layer whose weights are quantised, in parts: tensors with names."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weights."""

    def kinds(self) -> dict[str, Kind]:
        """Return dtype and shape of each part."""

    def quantize(self, weight: Tensor, out: Mapping[str, Tensor]) -> None:
        """Write the parts for a matrix to `out`; ValueError where a weight is not finite."""

    def set_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Compute with these from now on."""


def kind_of(tensor: Tensor) -> Kind:
    """Return a tensor's dtype and shape."""
    return NAMES[str(tensor.dtype)], tuple(tensor.shape)


def dtype_of(name: str) -> Any:
    """Return torch's dtype for safetensors' name of it."""
    import torch

    return next(getattr(torch, long.removeprefix("torch.")) for long, short in NAMES.items() if short == name)


def total_bytes(kinds: Mapping[str, Kind]) -> int:
    """Return the bytes of the tensors together."""
    return sum(_SIZES[dtype] * math.prod(shape) for dtype, shape in kinds.values())


class TensorFile:
    """Writes tensors of known shapes, in any order.

    Args:
        file: is written anew.
        kinds: dtype and shape by name, in the order in which they lie in the file.
        metadata: texts for the header.
    """

    def __init__(self, file: Path, kinds: Mapping[str, Kind], metadata: Mapping[str, str]) -> None:
        self._kinds, self._places, end = dict(kinds), {}, 0
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        for name, (dtype, shape) in kinds.items():
            size = _SIZES[dtype] * math.prod(shape)
            self._places[name] = end
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        raw = json.dumps(header).encode()
        raw += b" " * (-(8 + len(raw)) % _ALIGNMENT)
        self._start = 8 + len(raw)
        self._left = set(kinds)
        self._stream = file.open("wb")
        self._stream.write(struct.pack("<Q", len(raw)) + raw)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one of the tensors."""
        import torch

        if kind_of(tensor) != self._kinds[name]:
            raise ValueError(f"{name} was announced as {self._kinds[name]} and is {kind_of(tensor)}")
        self._stream.seek(self._start + self._places[name])
        array: Any = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
        self._stream.write(array)
        self._left.discard(name)

    def close(self) -> None:
        """Close the file; ValueError where a tensor was not written."""
        self._stream.close()
        if self._left:
            raise ValueError(f"{min(self._left)} was announced and never written")

    def abandon(self) -> None:
        """Close the file as it is."""
        self._stream.close()
