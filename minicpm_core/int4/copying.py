"""The copy of a model's quantised layers in the cache: written as they are made, mapped when they are needed again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from minicpm_core.int4.cache import Slot
from minicpm_core.int4.writing import Kind, Layer, TensorFile, dtype_of, total_bytes

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

_LINE = 64
"""Bytes of a cache line."""


class Copy:
    """Writes a copy; a context manager. Where the disk does not play along, there is a warning and no copy.

    Args:
        slot: the place in the cache, None for no copy.
        layers: whose weights will be written, by name.
        model: the checkpoint's name, for people.
    """

    def __init__(self, slot: Slot | None, layers: Mapping[str, Layer], model: str) -> None:
        self._slot, self._kinds, self._model = slot, _kinds(layers), model
        self._temporary: Path | None = None
        self._file: TensorFile | None = None
        self._pool = ThreadPoolExecutor(1)
        self._writes: list[Future[None]] = []
        self._threads = 0

    def __enter__(self) -> Copy:
        import torch

        self._temporary = self._slot.start(total_bytes(self._kinds)) if self._slot else None
        self._try(self._open)
        if self._temporary and (threads := torch.get_num_threads()) > 1:
            torch.set_num_threads(threads - 1)  # else each operation waits for the one whose core writes
            self._threads = threads
        return self

    def write(self, name: str, parts: Mapping[str, Tensor]) -> None:
        """Write one layer, in a thread: the next is quantised meanwhile."""
        if self._temporary is None:
            return
        self._writes.append(self._pool.submit(self._try, lambda: _write(self._file, name, parts)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import torch

        if self._threads:
            torch.set_num_threads(self._threads)
        if kind is not None and self._slot:
            self._slot.abandon()
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
        if self._file:
            with suppress(OSError):  # what is left in its buffer has no room either
                self._file.abandon()
        if self._temporary:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
        self._file = self._temporary = None


class Memory:
    """One block of memory for the weights of all layers.

    Layers in blocks of their own would lie between what is computed on the way, and keep the allocator from using that
    memory again: measured, the process grew by several times the weights.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        import torch

        kinds = _kinds(layers)
        block, start = torch.empty(total_bytes(kinds), dtype=torch.uint8), 0
        self._parts: dict[str, dict[str, Tensor]] = {name: {} for name in layers}
        for name, (dtype, shape) in kinds.items():
            size = total_bytes({name: (dtype, shape)})
            layer, _, part = name.rpartition(".")
            self._parts[layer][part] = block[start : start + size].view(dtype_of(dtype)).view(shape)
            start += size

    def parts(self, name: str) -> dict[str, Tensor]:
        """Return the place of a layer's parts in the block."""
        return self._parts[name]


def set_copied(layers: Mapping[str, Layer], file: Path) -> bool:
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
        layer.set_parts({part: opened.get_tensor(f"{name}.{part}") for part in layer.kinds()})
    return True


def _kinds(layers: Mapping[str, Layer]) -> dict[str, Kind]:
    """Return dtype and shape by name: first what takes whole cache lines, so that as much as can be begins with one."""
    kinds = {f"{name}.{part}": kind for name, layer in layers.items() for part, kind in layer.kinds().items()}
    return dict(sorted(kinds.items(), key=lambda item: -math.gcd(total_bytes(dict([item])), _LINE)))


def _write(file: TensorFile | None, name: str, parts: Mapping[str, Tensor]) -> None:
    assert file
    for part, tensor in parts.items():
        file.write(f"{name}.{part}", tensor)
