"""Models whose layers are made 4-bit, and whose head 8-bit, one by one: from 16-bit weights or 4-bit files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from minicpm_core.int4.head import SCALE, Embedding8bit, Head8bit, suits
from minicpm_core.int4.kernel import has_kernel
from minicpm_core.int4.layout import ROWS
from minicpm_core.int4.linear import Linear4bit, pack
from minicpm_core.int4.nf4 import BLOCK, NESTED_BLOCK, Scales, code, nested_code
from minicpm_core.int4.writing import Layer
from minicpm_core.quantization import UNQUANTIZED
from minicpm_core.weights import StoredTensor, Tensors

STATE = ".quant_state.bitsandbytes__nf4"


def four_bit_class(
    model_class: Any, dtype: Any, chosen: Callable[[str], bool], *, small_head: bool
) -> tuple[Any, dict[str, Layer]]:
    """Return the class with `chosen` linear layers replaced, and the dict in which a new model's replaced ones appear.

    The layers have no weights, so that `from_pretrained` neither asks for them nor makes them.

    Args:
        model_class: a class of transformers.
        dtype: of what stays unquantised.
        chosen: tells the linear layers to replace, by name.
        small_head: also put an 8-bit head, and 8-bit embeddings that are tied to it, in place.
    """
    layers: dict[str, Layer] = {}

    def build(self: Any, config: Any, *args: Any, **arguments: Any) -> None:
        model_class.__init__(self, config, *args, **arguments)
        if small_head:  # first, while the least is in memory: it is the largest
            layers.update(_replace_head(self, dtype))
        for name, module in list(self.named_modules()):
            if type(module) is nn.Linear and chosen(name):
                layer = Linear4bit(module.in_features, module.out_features, module.bias is not None, dtype)
                layer.requires_grad_(False)
                layer._is_hf_initialized = True  # transformers fills what lacks this with random numbers
                self.set_submodule(name, layer)
                layers[name] = layer

    four_bit = type(model_class.__name__, (model_class,), {"__init__": build, "__module__": model_class.__module__})
    return four_bit, layers


def _replace_head(model: Any, dtype: Any) -> dict[str, Layer]:
    """Put an 8-bit head in place where one can be; return what needs weights by name: the embeddings if they are tied.

    Such embeddings set the head's weights, so that transformers has nothing to tie.
    """
    linear, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if type(linear) is not nn.Linear or linear.bias is not None or not suits(linear.in_features):
        return {}
    names = {module: name for name, module in model.named_modules()}
    name, shape = names[linear], (linear.in_features, linear.out_features)
    if (source := model.all_tied_weights_keys.get(f"{name}.weight")) is None:
        model.set_submodule(name, head := Head8bit(*shape, dtype))
        return {name: head}
    if not (type(embeddings) is nn.Embedding or hasattr(embeddings, SCALE)) or source != f"{names[embeddings]}.weight":
        return {}
    tied = Head8bit(*shape, dtype, tied=True)
    model.set_submodule(name, tied)
    model.set_submodule(names[embeddings], lookup := Embedding8bit(embeddings, tied, dtype))
    del model.all_tied_weights_keys[f"{name}.weight"]
    return {names[embeddings]: lookup}


def refuse_resizing(*_: Any, **__: Any) -> None:
    """Stand for `resize_token_embeddings` of a model whose head is in 8 bits.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "the output head is in 8 bits and cannot be resized; add tokens to the unquantised checkpoint "
        '(load it with quantization="none"), and quantise what was saved'
    )


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


@contextmanager
def naming(stored: StoredTensor) -> Iterator[None]:
    """Name the tensor in the ValueError of a weight that is not finite."""
    try:
        yield
    except ValueError as error:
        message = f"tensor {stored.name} holds numbers that are not finite (NaN or infinity); download it again"
        raise ValueError(message) from error


def check_shapes(layers: Mapping[str, Layer], tensors: Tensors) -> None:
    """Raise RuntimeError, as transformers does, where a tensor has another shape than its layer."""
    for name, layer in layers.items():
        shape = tensors[f"{name}.weight"].shape
        if shape != layer.shape:
            raise RuntimeError(f"tensor {name}.weight has the shape {list(shape)}, and {list(layer.shape)} is needed")


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


def read_layer(layer: Linear4bit, name: str, tensors: Tensors) -> dict[str, Tensor]:
    """Return the parts of a layer that is stored in 4 bits.

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
    if rows % ROWS or columns % BLOCK or not has_kernel():
        return {"packed": packed.view(rows, -1), "absmax": absmax, "nested_absmax": nested, "offset": offset}
    codes = torch.stack([packed >> 4, packed & 15], dim=-1).view(rows, columns)
    return pack(codes, Scales(absmax, nested, offset))


def _read_state(stored: StoredTensor) -> dict[str, Any]:
    try:
        state = json.loads(bytes(stored.read().tolist()))
        if isinstance(state, dict):
            return state
    except (ValueError, TypeError) as error:
        raise ValueError(f"the tensor {stored.name} cannot be read ({error}); download it again") from error
    raise ValueError(f"the tensor {stored.name} holds no object; download it again")
