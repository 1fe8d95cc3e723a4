"""The copy of a model's 4-bit layers in the cache: written as they are made, mapped when they are needed again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from minicpm_core.int4.cache import Slot
from minicpm_core.int4.kernel import has_kernel
from minicpm_core.int4.linear import Linear4bit, Weights
from minicpm_core.int4.nf4 import BLOCK, NESTED_BLOCK, Scales
from minicpm_core.int4.writing import Kind, TensorFile, dtype_of, total_bytes

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


class Copy:
    """Writes a copy; a context manager. Where the disk does not play along, there is a warning and no copy.

    Args:
        slot: the place in the cache, None for no copy.
        layers: whose weights will be written, by name.
        model: the checkpoint's name, for people.
    """

    def __init__(self, slot: Slot | None, layers: Mapping[str, Linear4bit], model: str) -> None:
        self._slot, self._kinds, self._model = slot, _kinds(layers), model
        self._temporary: Path | None = None
        self._file: TensorFile | None = None
        self._pool = ThreadPoolExecutor(1)
        self._writes: list[Future[None]] = []

    def __enter__(self) -> Copy:
        self._temporary = self._slot.start(total_bytes(self._kinds)) if self._slot else None
        self._try(self._open)
        return self

    def write(self, name: str, weights: Weights) -> None:
        """Write one layer, in a thread: the next is quantised meanwhile."""
        if self._temporary is None:
            return
        self._writes.append(self._pool.submit(self._try, lambda: _write(self._file, name, weights)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for write in self._writes:
                write.result()
            self._try(self._finish)
        self._drop()

    def _open(self) -> None:
        assert self._temporary
        self._file = TensorFile(self._temporary, self._kinds, {"format": "pt", "model": self._model})

    def _finish(self) -> None:
        assert self._file
        assert self._slot
        assert self._temporary
        self._file.close()
        self._slot.finish(self._temporary)

    def _try(self, act: Callable[[], None]) -> None:
        if self._temporary is None:
            return
        try:
            act()
        except OSError as error:
            logger.warning("no int4 copy is kept: %s", error)
            self._drop()

    def _drop(self) -> None:
        """Remove what is not in its place; errors of the disk were told before."""
        try:
            if self._file:
                self._file.abandon()
            if self._temporary:
                self._temporary.unlink(missing_ok=True)
        except OSError:
            pass
        self._file = self._temporary = None


class Memory:
    """One block of memory for the weights of all layers.

    Layers in blocks of their own would lie between what is computed on the way, and keep the allocator from using that
    memory again: measured, the process grew by several times the weights.
    """

    def __init__(self, layers: Mapping[str, Linear4bit]) -> None:
        import torch

        kinds = _kinds(layers)
        block, start, self._parts = torch.empty(total_bytes(kinds), dtype=torch.uint8), 0, {}
        for name, (dtype, shape) in kinds.items():
            size = total_bytes({name: (dtype, shape)})
            self._parts[name] = block[start : start + size].view(dtype_of(dtype)).view(shape)
            start += size

    def hold(self, name: str, weights: Weights) -> Weights:
        """Return the weights of a layer, copied to their place in the block."""
        scales = weights.scales
        kernel_scales = weights.kernel_scales
        return Weights(
            self._copy(f"{name}.packed", weights.packed),
            Scales(
                self._copy(f"{name}.absmax", scales.absmax),
                self._copy(f"{name}.nested_absmax", scales.nested_absmax),
                self._copy(f"{name}.offset", scales.offset),
            ),
            None if kernel_scales is None else self._copy(f"{name}.kernel_scales", kernel_scales),
        )

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        return self._parts.pop(name).copy_(tensor)


def set_copied(layers: Mapping[str, Linear4bit], file: Path) -> bool:
    """Give the layers the weights in a file of the cache, mapped; False where the file is not what was written."""
    from safetensors import safe_open

    try:
        opened: Any = safe_open(str(file), framework="pt", device="cpu")  # closed with the last tensor
        slices = {name: opened.get_slice(name) for name in opened.keys()}
    except Exception:  # safetensors raises kinds of its own
        return False
    if {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()} != _kinds(layers):
        return False
    for name, layer in layers.items():
        part = {p: opened.get_tensor(f"{name}.{p}") for p in ("packed", "absmax", "nested_absmax", "offset")}
        kernel_scales = opened.get_tensor(f"{name}.kernel_scales") if has_kernel() else None
        scales = Scales(part["absmax"], part["nested_absmax"], part["offset"])
        layer.set_weights(Weights(part["packed"], scales, kernel_scales))
    return True


def _kinds(layers: Mapping[str, Linear4bit]) -> dict[str, Kind]:
    """Return dtype and shape by name: first those whose sizes keep the next ones aligned."""
    kinds: list[tuple[int, str, Kind]] = []
    for name, layer in layers.items():
        rows, columns = layer.out_features, layer.in_features
        blocks = rows * columns // BLOCK
        kinds.append((0, f"{name}.packed", ("U8", (rows, columns // 2))))
        if has_kernel():
            kinds.append((1, f"{name}.kernel_scales", ("BF16", (columns // BLOCK, rows))))
        kinds.append((2, f"{name}.nested_absmax", ("F32", (-(blocks // -NESTED_BLOCK),))))
        kinds.append((2, f"{name}.offset", ("F32", ())))
        kinds.append((3, f"{name}.absmax", ("U8", (blocks,))))
    return {name: kind for _, name, kind in sorted(kinds, key=lambda row: row[0])}


def _write(file: TensorFile | None, name: str, weights: Weights) -> None:
    assert file
    file.write(f"{name}.packed", weights.packed)
    file.write(f"{name}.absmax", weights.scales.absmax)
    file.write(f"{name}.nested_absmax", weights.scales.nested_absmax)
    file.write(f"{name}.offset", weights.scales.offset)
    if weights.kernel_scales is not None:
        file.write(f"{name}.kernel_scales", weights.kernel_scales)
