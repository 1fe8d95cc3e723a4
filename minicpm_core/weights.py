"""Stored tensors that are read one by one, when they are needed."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minicpm_core.files import read_header

_COPY_OF_BASE = ".original_module."
"""PEFT's copy of a module as it was before training."""
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "U8": "uint8", "I8": "int8"}
_IGNORED = ".rotary_emb.inv_freq"
"""A buffer that old checkpoints store and every class computes itself."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file; indexing it reads it, which is the protocol that transformers loads by.

    Args:
        name: the name in the checkpoint.
        dtype: safetensors' name of the dtype, such as "BF16".
        shape: the sizes, in the order of the dimensions.
        read: returns the tensor.
        finite: there is no NaN and no infinity in it, which need not be looked for again.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Any]
    finite: bool = False

    def __getitem__(self, index: Any) -> Any:
        tensor = self.read()
        if tensor.is_floating_point() and not self.finite:
            refuse_not_finite(self.name, tensor)
        return tensor[index]

    def get_dtype(self) -> str:
        """Return the dtype's name."""
        return self.dtype


Tensors = Mapping[str, StoredTensor]


def unchanged(tensors: Tensors) -> Tensors:
    """Return the tensors under the names they are stored by."""
    return tensors


@contextmanager
def open_tensors(files: tuple[Path, ...], *, mapped: bool = True) -> Iterator[Tensors]:
    """Give access to all tensors in the files; nothing is read yet, and pickles run no code.

    Args:
        files: safetensors or pickles.
        mapped: tensors in safetensors lie in one mapping of the file; else each in its own, which ends with the tensor.

    Raises:
        ValueError: a file is damaged, or a pickle holds something else than tensors.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        if file.suffix != ".safetensors":
            tensors |= _open_pickle(file)
        else:
            tensors |= _open_safetensors(file) if mapped else _open_unmapped(file)
    yield {name: tensor for name, tensor in tensors.items() if not name.endswith(_IGNORED)}


def refuse_not_finite(name: str, tensor: Any) -> None:
    """Raise ValueError where a weight is NaN or infinite."""
    if tensor.element_size() < 2 or not tensor.numel():  # 8-bit floats of quantised checkpoints have no infinity
        return
    if not all(bound.isfinite() for bound in tensor.aminmax()):  # NaN is both; nothing as large as the tensor is made
        raise ValueError(f"tensor {name} holds numbers that are not finite (NaN or infinity); download it again")


def _open_safetensors(file: Path) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    try:
        # Closed with its last tensor: closing it here would fail while a thread of transformers still reads.
        handle: Any = safe_open(str(file), framework="pt", device="cpu")
        slices = {name: handle.get_slice(name) for name in handle.keys()}
        kinds = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}; download it again") from error
    return {
        name: StoredTensor(name, dtype, shape, partial(handle.get_tensor, name))
        for name, (dtype, shape) in kinds.items()
    }


def _open_unmapped(file: Path) -> dict[str, StoredTensor]:
    header = read_header(file)
    start = file.stat().st_size - max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    return {
        name: StoredTensor(
            name, tensor["dtype"], tuple(tensor["shape"]), partial(_read_unmapped, file, start, name, tensor)
        )
        for name, tensor in header.items()
    }


def _read_unmapped(file: Path, start: int, name: str, tensor: Mapping[str, Any]) -> Any:
    """Return a tensor in a mapping of its own: no copy is made, and what was read leaves memory with the tensor."""
    import torch

    first, end = tensor["data_offsets"]
    kind, shape = getattr(torch, _DTYPES[tensor["dtype"]]), tensor["shape"]
    if first == end:
        return torch.empty(shape, dtype=kind)
    lead = (start + first) % mmap.ALLOCATIONGRANULARITY
    try:
        with file.open("rb") as stream:
            # To be written to, and then copied, since torch warns of memory that is not.
            data = mmap.mmap(stream.fileno(), lead + end - first, access=mmap.ACCESS_COPY, offset=start + first - lead)
    except ValueError as error:
        raise ValueError(f"{file} became shorter while it was read; tensor {name} is not whole") from error
    return torch.frombuffer(data, dtype=torch.uint8, offset=lead).view(kind).view(shape)


def _open_pickle(file: Path) -> dict[str, StoredTensor]:
    import torch

    zipped = zipfile.is_zipfile(file)
    if zipped:
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError(f"{file} is compressed, which torch.save never does; download it again")
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # the unpickler raises many kinds
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{file} is damaged, or holds code and not only tensors; nothing in it was run ({reason})"
        ) from error
    if not isinstance(stored, dict):
        raise ValueError(f"{file} holds a {type(stored).__name__}; a dict of tensors is needed")
    for name, value in stored.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{file} holds {name!r}, a {type(value).__name__}; only tensors are accepted")
    kinds = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
    return {
        _plain_name(name): StoredTensor(name, kinds.get(value.dtype, "I8"), tuple(value.shape), partial(_itself, value))
        for name, value in stored.items()
        if _COPY_OF_BASE not in name
    }


def _plain_name(name: str) -> str:
    """Return the checkpoint's own name of a tensor that was saved from a model inside PEFT's."""
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default.", ".")


def _itself(tensor: Any) -> Any:
    return tensor
