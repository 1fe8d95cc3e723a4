"""A model for the CPU with 4-bit layers: each tensor is read, quantised and dropped, or comes from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from minicpm_core.int4 import head, loading
from minicpm_core.int4.cache import Slot, cache_folder
from minicpm_core.int4.copying import Copy, Memory, set_copied
from minicpm_core.int4.kernel import has_kernel
from minicpm_core.int4.linear import Linear4bit
from minicpm_core.weights import Tensors

_FORMAT = "2"
"""Of the files in the cache; raise it when what is stored, or how it is computed, changes."""
_WORTH = 100_000_000
"""Bytes of weights from which a copy in the cache is kept."""


@dataclass(frozen=True)
class Source:
    """Where a model's tensors come from.

    Args:
        name: of the checkpoint, for people.
        files: the weight files.
        tensors: by the names of the model's class.
        reopen: gives the same tensors once more, each in a mapping of its own that ends with it.
        way: what names and values depend on beside the files.
    """

    name: str
    files: tuple[Path, ...]
    tensors: Tensors
    reopen: Callable[[], AbstractContextManager[Tensors]]
    way: Mapping[str, str]

    def slot(self, **more: str) -> Slot | None:
        """Return the place in the cache for these files loaded in this way, None where no copy is kept."""
        folder = cache_folder()
        if folder is None or sum(file.stat().st_size for file in self.files) < _WORTH:
            return None
        return Slot(folder, self.files, {**self.way, **more, "format": _FORMAT, "version": _version()})


def load_four_bit(
    model_class: Any, config: Any, source: Source, *, dtype: Any, quantized: Any
) -> tuple[Any, dict[str, Any]]:
    """Return the model and what transformers tells of its loading (`output_loading_info`).

    Args:
        model_class: a class of transformers, or one derived from such a class.
        config: its config, without quantization_config.
        source: of the tensors.
        dtype: of what stays unquantised; weights are rounded to it before they are quantised, as transformers does.
        quantized: the config for bitsandbytes that the model will show.

    Raises:
        ValueError: a tensor has another shape than the config asks for, or holds NaN.
    """
    tensors = source.tensors
    stored = {name.removesuffix(f".weight{loading.STATE}") for name in tensors if name.endswith(loading.STATE)}
    skipped = sorted(set(quantized.llm_int8_skip_modules or ()))
    slot = None if stored else source.slot(dtype=str(dtype), skipped=" ".join(skipped), **_kernels())
    copied = slot.find() if slot else None
    if copied:  # these bytes have been looked through for NaN
        tensors = {name: replace(tensor, finite=True) for name, tensor in tensors.items()}

    chosen = stored.__contains__ if stored else loading.chooser(quantized, model_class)
    made, layers = loading.four_bit_class(model_class, dtype, chosen, small_head=True)
    model, info = made.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True)
    model.__class__ = model_class
    if any(isinstance(layer, head.EightBit) for layer in layers.values()):
        model.resize_token_embeddings = loading.refuse_resizing
    weights = tuple(f"{name}.weight" for name in layers)
    info["unexpected_keys"] = [key for key in info["unexpected_keys"] if not key.startswith(weights)]
    info["missing_keys"] = [*info["missing_keys"], *(key for key in weights if key not in tensors)]
    if stored:
        for name in stored:
            if isinstance(layer := layers.pop(name, None), Linear4bit):
                layer.set_parts(loading.read_layer(layer, name, tensors))
    if not info["missing_keys"] and not (copied and set_copied(layers, copied)):
        loading.check_shapes(layers, tensors)
        with source.reopen() as unmapped, Copy(slot, layers, source.name) as copy:
            memory = Memory(layers)
            for name, layer in layers.items():
                parts, weight = memory.parts(name), unmapped[f"{name}.weight"]
                with loading.naming(weight):
                    layer.quantize(weight.read(), parts)
                layer.set_parts(parts)
                copy.write(name, parts)
    _show_quantized(model, quantized, pre_quantized=bool(stored))
    return model, info


def _show_quantized(model: Any, quantized: Any, *, pre_quantized: bool) -> None:
    """Set what transformers and PEFT look for in a model that bitsandbytes has quantised."""
    from transformers.quantizers.auto import AutoHfQuantizer

    model.hf_quantizer = AutoHfQuantizer.from_config(quantized, pre_quantized=pre_quantized)
    model.config.quantization_config = quantized
    model.is_quantized = model.is_loaded_in_4bit = True
    model.quantization_method = quantized.quant_method


def _kernels() -> dict[str, str]:
    return {"kernel": str(has_kernel()), "head": str(head.has_kernel())}


def _version() -> str:
    try:
        return version("minicpm-integrations")
    except PackageNotFoundError:
        return ""
