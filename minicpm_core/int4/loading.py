"""Models whose linear layers are made 4-bit one by one, from 16-bit weights, 4-bit files or the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minicpm_core.int4.kernel import has_kernel
from minicpm_core.int4.layout import ROWS
from minicpm_core.int4.linear import Linear4bit, Weights
from minicpm_core.int4.nf4 import BLOCK, NESTED_BLOCK, Scales, code, nested_code, quantize_codes, quantize_scales
from minicpm_core.quantization import UNQUANTIZED
from minicpm_core.weights import StoredTensor, Tensors

STATE = ".quant_state.bitsandbytes__nf4"


def four_bit_class(model_class: Any, dtype: Any, chosen: Callable[[str], bool]) -> tuple[Any, dict[str, Linear4bit]]:
    """Return the class with `chosen` linear layers replaced, and the dict in which a new model's replaced ones appear.

    The layers have no weights, so that `from_pretrained` neither asks for them nor makes them.
    """
    layers: dict[str, Linear4bit] = {}

    def build(self: Any, config: Any, *args: Any, **arguments: Any) -> None:
        model_class.__init__(self, config, *args, **arguments)
        for name, module in list(self.named_modules()):
            if type(module) is nn.Linear and chosen(name):
                layer = Linear4bit(module.in_features, module.out_features, module.bias is not None, dtype)
                layer.requires_grad_(False)
                layer._is_hf_initialized = True  # transformers fills what lacks this with random numbers
                self.set_submodule(name, layer)
                layers[name] = layer

    four_bit = type(model_class.__name__, (model_class,), {"__init__": build, "__module__": model_class.__module__})
    return four_bit, layers


def chooser(quantized: Any, model_class: Any) -> Callable[[str], bool]:
    """Return what tells the linear layers to quantise, by name.

    Args:
        quantized: the config for bitsandbytes.
        model_class: the class of transformers, which may keep layers in float32.
    """
    from transformers.quantizers.quantizers_utils import should_convert_module

    skipped = [*(quantized.llm_int8_skip_modules or ()), *(model_class._keep_in_fp32_modules or ())]

    def chosen(name: str) -> bool:
        return bool(should_convert_module(name, skipped)) and not set(name.split(".")) & set(UNQUANTIZED)

    return chosen


def quantize_layers(layers: Mapping[str, Any], tensors: Tensors, dtype: Any) -> Iterator[tuple[str, Tensor, Scales]]:
    """Yield each layer's name, codes [rows, columns] and scales; one tensor is in memory at a time.

    Raises:
        ValueError: weights are not finite.
    """
    for name in layers:
        stored = tensors[f"{name}.weight"]
        try:
            codes, absmax = quantize_codes(stored.read(), dtype)
        except ValueError as error:
            message = f"tensor {stored.name} holds numbers that are not finite (NaN or infinity); download it again"
            raise ValueError(message) from error
        yield name, codes, quantize_scales(absmax)


def check_shapes(layers: Mapping[str, Linear4bit], tensors: Tensors) -> None:
    """Raise RuntimeError, as transformers does, where a tensor has another shape than its layer."""
    for name, layer in layers.items():
        shape, wanted = tensors[f"{name}.weight"].shape, (layer.out_features, layer.in_features)
        if shape != wanted:
            raise RuntimeError(f"tensor {name}.weight has the shape {list(shape)}, and {list(wanted)} is needed")


def is_standard(tensors: Tensors) -> bool:
    """Tell whether stored 4-bit tensors are nf4 in the blocks and with the codes that are computed with here."""
    states = [name for name in tensors if name.endswith(STATE)]
    for name in states[:1]:
        weight = name.removesuffix(STATE)
        state = _read_state(tensors[name])
        parts = (f"{weight}.quant_map", f"{weight}.nested_quant_map")
        return (
            (state.get("blocksize"), state.get("nested_blocksize")) == (BLOCK, NESTED_BLOCK)
            and tensors[weight].dtype == "U8"
            and all(part in tensors for part in parts)
            and torch.equal(tensors[parts[0]].read(), code())
            and torch.equal(tensors[parts[1]].read(), nested_code())
        )
    return False


def read_layer(layer: Linear4bit, name: str, tensors: Tensors) -> Weights:
    """Return the weights of a layer that is stored in 4 bits.

    Raises:
        ValueError: parts are missing, or do not fit the layer.
    """
    rows, columns = layer.out_features, layer.in_features
    parts = (f"{name}.weight", f"{name}.weight.absmax", f"{name}.weight.nested_absmax", f"{name}.weight{STATE}")
    if lacking := [part for part in parts if part not in tensors]:
        raise ValueError(f"the files lack {lacking[0]}, without which {name} cannot be computed with")
    state = _read_state(tensors[parts[3]])
    packed, absmax, nested = (tensors[part].read().clone().view(-1) for part in parts[:3])
    offset = torch.tensor(float(state.get("nested_offset", 0.0)))
    blocks = -(rows * columns // -BLOCK)
    fits = list(state.get("shape", ())) == [rows, columns] and columns % 2 == 0
    sizes = (packed.numel() * 2, absmax.numel(), nested.numel())
    if not fits or sizes != (rows * columns, blocks, -(blocks // -NESTED_BLOCK)):
        raise ValueError(f"the parts of {name}.weight do not fit together or the layer; download them again")
    scales = Scales(absmax, nested, offset)
    if rows % ROWS or columns % BLOCK or not has_kernel():
        return Weights(packed.view(rows, -1), scales, None)
    codes = torch.stack([packed >> 4, packed & 15], dim=-1).view(rows, columns)
    return Weights.pack(codes, scales)


def _read_state(stored: StoredTensor) -> dict[str, Any]:
    try:
        state = json.loads(bytes(stored.read().tolist()))
        if isinstance(state, dict):
            return state
    except (ValueError, TypeError) as error:
        raise ValueError(f"the tensor {stored.name} cannot be read ({error}); download it again") from error
    raise ValueError(f"the tensor {stored.name} holds no object; download it again")
