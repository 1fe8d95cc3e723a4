"""What a checkpoint's weights take in memory once they are loaded, from file headers."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from minicpm_core.checkpoints import Checkpoint
from minicpm_core.files import read_header
from minicpm_core.int4.layout import ROWS
from minicpm_core.int4.nf4 import BLOCK, NESTED_BLOCK
from minicpm_core.published import PublishedModel
from minicpm_core.quantization import UNQUANTIZED
from minicpm_core.weights import StoredTensor

Quantized = Literal["int4", "int8"] | None

_TABLES = ("lm_head.weight", "embed_tokens.weight")
_PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format")
"""What bitsandbytes stores beside a quantised weight."""
_STATE = ".quant_state.bitsandbytes__"
_NESTED = ".nested_quant_map"
"""Only beside weights whose scales are quantised too, as the layers of minicpm_core.int4 have them."""
_VIEWING = ("vpm.", "resampler.")
"""Parts of MiniCPM-V 1.0 to 4.5 beside the language model; their audio parts are not loaded."""
_ROUTERS = (".router.weight", ".mlp.gate.weight")


@dataclass(frozen=True)
class Form:
    """In which form weights are kept.

    Args:
        quantization: of the linear layers.
        value: bytes of a number that is not quantised.
        device: "cpu" or "cuda...".
        stock: the layers are bitsandbytes' own also on the CPU.
    """

    quantization: Quantized
    value: float = 2.0
    device: str = "cpu"
    stock: bool = False

    def plain(self, elements: int) -> int:
        """Return the bytes of numbers that are not quantised."""
        return int(elements * self.value)

    def linear(self, rows: int, columns: int) -> int:
        """Return the bytes of a linear layer's weights and their scales."""
        if self.quantization == "int8":
            return rows * columns + 4 * rows
        if self.quantization is None or rows % ROWS or columns % BLOCK:
            return self.plain(rows * columns)
        blocks = rows * columns // BLOCK
        scales = blocks + 4 * -(blocks // -NESTED_BLOCK) + 4
        return rows * columns // 2 + scales + (2 * blocks if self._has_kernel else 0)

    def table(self, rows: int, columns: int, *, is_head: bool) -> int:
        """Return the bytes of the embeddings, or of the head or embeddings that are tied to it (`is_head`)."""
        if is_head and self.quantization == "int4" and self._is_ours and _suits(columns):
            return rows * columns + 4 * rows
        return self.plain(rows * columns)

    @property
    def _is_ours(self) -> bool:
        return self.device == "cpu" and not self.stock and importlib.util.find_spec("bitsandbytes") is not None

    @property
    def _has_kernel(self) -> bool:
        if not self._is_ours:
            return False
        from minicpm_core.int4.kernel import has_kernel

        return has_kernel()


def _suits(columns: int) -> bool:
    from minicpm_core.int4.head import suits

    return suits(columns)


@dataclass(frozen=True)
class WeightBytes:
    """Bytes by kind.

    Args:
        linears: the matrices of the layers, with their scales.
        tables: the embeddings and the output head.
        other: norms, biases, routers, and the vision tower.
        largest: elements of the largest linear layer.
    """

    linears: int
    tables: int
    other: int
    largest: int


def count_weights(checkpoint: Checkpoint, config: Any, form: Form) -> WeightBytes:
    """Return what the checkpoint's weights will take, from the headers of its files.

    Args:
        checkpoint: an open checkpoint.
        config: its translated config.
        form: in which form they are kept.
    """
    if any(file.suffix != ".safetensors" for file in checkpoint.weight_files):
        return _count_pickled(checkpoint, config.get_text_config(), form)
    stored: dict[str, StoredTensor] = {}
    for file in checkpoint.weight_files:
        for name, entry in read_header(file).items():
            stored[name] = StoredTensor(name, entry["dtype"], tuple(entry["shape"]), _unread)
    if any(_STATE in name for name in stored):
        form = replace(form, stock=not any(name.endswith(_NESTED) for name in stored))
    family = checkpoint.family
    arrange = family.quantized_arrange if form.quantization and family.quantized_arrange else family.arrange
    tensors = dict(arrange(_unpacked(stored)))
    viewing = {name: t for name, t in _unpacked(stored).items() if name.startswith(_VIEWING)} if family.vision else {}
    return _count(tensors, viewing, config, form)


def count_published(model: PublishedModel, form: Form) -> WeightBytes:
    """Return the bytes of a published model's weights."""
    tables = form.table(model.vocab_size, model.hidden_size, is_head=True)
    if not model.tie_word_embeddings:
        tables += form.table(model.vocab_size, model.hidden_size, is_head=False)
    matrices = model.matrices
    linears = model.num_hidden_layers * sum(form.linear(rows, columns) for rows, columns in matrices)
    return WeightBytes(linears, tables, form.plain(model.norm_weights), max(r * c for r, c in matrices))


def _count(tensors: Mapping[str, Any], viewing: Mapping[str, Any], config: Any, form: Form) -> WeightBytes:
    tied = bool(config.tie_word_embeddings)
    linears = tables = other = largest = 0
    for name, tensor in tensors.items():
        shape = tensor.shape
        if name.endswith(_TABLES) and len(shape) == 2:
            is_head = "lm_head" in name
            tables += 0 if is_head and tied else form.table(shape[0], shape[1], is_head=is_head or tied)
        elif _is_linear(name, shape):
            unsuitable = form.quantization == "int8" and name.endswith("kv_b_proj.weight")
            linears += form.plain(math.prod(shape)) if unsuitable else form.linear(shape[0], shape[1])
            largest = max(largest, math.prod(shape))
        elif ".experts." in name:  # stacked, which they are where they stay unquantised
            linears += form.plain(math.prod(shape))
        else:
            other += form.plain(math.prod(shape))
    other += sum(form.plain(math.prod(tensor.shape)) for tensor in viewing.values())
    return WeightBytes(linears, tables, other, largest)


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    kept = any(part in UNQUANTIZED for part in name.split(".")) or name.endswith(_ROUTERS)
    return len(shape) == 2 and name.endswith(".weight") and not kept


def _unpacked(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the tensors with those in 4 bits in a shape with their number of elements, and without their parts."""
    four_bit = {name.partition(_STATE)[0] for name in stored if _STATE in name}
    result = {}
    for name, tensor in stored.items():
        if _STATE in name or name.endswith(_PARTS):
            continue
        shape = (ROWS, 2 * math.prod(tensor.shape) // ROWS)
        result[name] = StoredTensor(name, "F16", shape, _unread) if name in four_bit else tensor
    return result


def _count_pickled(checkpoint: Checkpoint, config: Any, form: Form) -> WeightBytes:
    """Do the same for pickles, which tell their shapes only when they are read: all but the tables is linear layers."""
    width = 4 if "32" in str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")) else 2
    elements = sum(file.stat().st_size for file in checkpoint.weight_files) // width
    heads = 1 if config.tie_word_embeddings else 2
    tables = form.table(config.vocab_size, config.hidden_size, is_head=True)
    tables += form.plain(config.vocab_size * config.hidden_size) * (heads - 1)
    rest = max(elements - heads * config.vocab_size * config.hidden_size, 0)
    columns = rest // (ROWS * BLOCK) * BLOCK
    return WeightBytes(form.linear(ROWS, columns), tables, 0, config.hidden_size * 4096)


def _unread() -> Any:
    raise AssertionError("a plan reads headers only")
