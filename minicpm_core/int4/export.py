"""Writes a checkpoint quantised as bitsandbytes stores it, tensor by tensor."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minicpm_core.activations import is_registered_here
from minicpm_core.checkpoints import Checkpoint, load_tokenizer, open_arranged, open_checkpoint
from minicpm_core.copies import empty_folder, stored_dtype
from minicpm_core.files import has_file
from minicpm_core.quantization import bitsandbytes_config, stored_kind, unsuitable_modules
from minicpm_core.quiet import quiet
from minicpm_core.weights import Tensors

_STATE_BYTES = 256
"""Of the text that says how a tensor is quantised; blanks fill it, since its length is needed before it is known."""
_TENSORS = "model.safetensors"


def quantize(model: str | Path, out: str | Path, *, family: str | None = None, revision: str | None = None) -> Path:
    """Write `model` in int4 (nf4, double quantisation), as stock transformers opens it; return the folder.

    The weights are those of `load(model, quantization="int4")`. One tensor is in memory at a time.

    Args:
        model: a folder in the hub's layout, or a hub id.
        out: a folder that does not exist yet, or is empty.
        family: a name of the family table, where the checkpoint is not recognised.
        revision: branch, tag or commit on the hub.

    Raises:
        FileExistsError: there is something in `out`.
        ValueError: the weights are quantised, or no stock class computes with them in 4 bits.
        ImportError: bitsandbytes is not installed.
    """
    checkpoint = open_checkpoint(model, family=family, revision=revision)
    _refuse_unsuited(checkpoint)
    try:
        quantized = bitsandbytes_config("int4", compute_dtype=stored_dtype(checkpoint))
    except ImportError as error:
        raise ImportError('int4 needs bitsandbytes: pip install "minicpm-integrations[int4]"') from error
    target = empty_folder(out)
    with quiet():
        _write(checkpoint, quantized, target)
        load_tokenizer(checkpoint).save_pretrained(target)
    if has_file(checkpoint.folder, "generation_config.json"):
        shutil.copyfile(checkpoint.folder / "generation_config.json", target / "generation_config.json")
    return target


def _refuse_unsuited(checkpoint: Checkpoint) -> None:
    family = checkpoint.family
    if kind := stored_kind(checkpoint.config):
        raise ValueError(f"the weights of {checkpoint.name} are stored in {kind} already")
    if family.vision is not None:
        raise ValueError("checkpoints that read pictures have no stock class of transformers to be written as")
    if family.quantized_class is not None:
        raise ValueError(
            "stock transformers has no experts in 4 bits to write this mixture as; load it with quantization='int4', "
            "which keeps a quantised copy in the cache"
        )
    activation = str(family.translate(checkpoint.config).hidden_act)
    if is_registered_here(activation):
        raise ValueError(f"no stock class of transformers has the activation {activation}; load the checkpoint itself")


def _write(checkpoint: Checkpoint, quantized: Any, folder: Path) -> None:
    import torch
    import transformers

    from minicpm_core.int4.loading import check_shapes, chooser, four_bit_class, naming
    from minicpm_core.int4.nf4 import quantize_codes, quantize_scales
    from minicpm_core.int4.writing import TensorFile

    config, dtype = checkpoint.family.translate(checkpoint.config), stored_dtype(checkpoint)
    config.dtype = dtype
    reopen = open_arranged(checkpoint, config, checkpoint.family.arrange, mapped=False)
    with reopen as tensors:
        quantized.llm_int8_skip_modules += unsuitable_modules(tensors, quantized)
        model_class = getattr(transformers, checkpoint.family.model_class)
        made, layers = four_bit_class(model_class, dtype, chooser(quantized, model_class), small_head=False)
        with torch.device("meta"):
            others = made(config).state_dict()
        if config.tie_word_embeddings:
            others.pop("lm_head.weight", None)
        names = [*others, *(f"{name}.weight" for name in layers)]
        if missing := sorted(name for name in names if name not in tensors):
            raise ValueError(
                f"{checkpoint.folder} lacks {len(missing)} tensors that its config.json asks for, e.g. {missing[0]}"
            )
        try:
            check_shapes(layers, tensors)
        except RuntimeError as error:
            raise ValueError(f"the weights in {checkpoint.folder} do not fit its config.json: {error}") from error
        temporary = folder / f".{_TENSORS}.tmp"
        file = TensorFile(temporary, _kinds(others, layers, dtype), {"format": "pt"})
        try:
            for name, tensor in others.items():
                file.write(name, _read(tensors, name, tensor.shape).to(dtype))
            for name in layers:
                with naming(stored := tensors[f"{name}.weight"]):
                    codes, absmax = quantize_codes(stored.read(), dtype)
                _write_layer(file, name, codes, quantize_scales(absmax), dtype)
            file.close()
        except BaseException:
            file.abandon()
            temporary.unlink(missing_ok=True)
            raise
        temporary.replace(folder / _TENSORS)
    config.quantization_config, config.architectures = quantized, [model_class.__name__]
    config.save_pretrained(folder)


def _read(tensors: Tensors, name: str, shape: Any) -> Any:
    tensor = tensors[name][...]
    if tensor.shape != shape:
        raise ValueError(f"tensor {name} has the shape {list(tensor.shape)}; config.json asks for {list(shape)}")
    return tensor


def _write_layer(file: Any, name: str, codes: Any, scales: Any, dtype: Any) -> None:
    import torch

    from minicpm_core.int4.layout import in_rows
    from minicpm_core.int4.linear import stored_tensors
    from minicpm_core.int4.loading import STATE

    for part, tensor in stored_tensors(in_rows(codes), scales, dtype).items():
        if f".{part}".endswith(STATE):
            tensor = torch.nn.functional.pad(tensor, (0, _STATE_BYTES - len(tensor)), value=ord(" "))
        file.write(f"{name}.{part}", tensor)


def _kinds(others: Mapping[str, Any], layers: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    from minicpm_core.int4.loading import STATE
    from minicpm_core.int4.nf4 import BLOCK, NESTED_BLOCK
    from minicpm_core.int4.writing import NAMES

    kinds = {name: (NAMES[str(dtype)], tuple(tensor.shape)) for name, tensor in others.items()}
    for name, layer in layers.items():
        weights = math.prod(layer.shape)
        kinds |= {
            f"{name}.weight": ("U8", (weights // 2, 1)),
            f"{name}.weight.absmax": ("U8", (weights // BLOCK,)),
            f"{name}.weight.nested_absmax": ("F32", (-(weights // BLOCK // -NESTED_BLOCK),)),
            f"{name}.weight.quant_map": ("F32", (16,)),
            f"{name}.weight.nested_quant_map": ("F32", (256,)),
            f"{name}.weight{STATE}": ("U8", (_STATE_BYTES,)),
        }
    return dict(sorted(kinds.items(), key=lambda item: item[1][0]))  # by dtype, so that all begin where they should
