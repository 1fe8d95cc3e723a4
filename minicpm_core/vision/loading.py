"""Builds MiniCPM-V 1.0 to 4.5 from a checkpoint's tensors, one by one."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from minicpm_core.checkpoints import Checkpoint, load_weights
from minicpm_core.files import has_file, read_json
from minicpm_core.vision.four_bit import unpacked
from minicpm_core.vision.minicpmv import LLM, read_scale
from minicpm_core.vision.model import VisionLanguageModel
from minicpm_core.vision.resampler import Resampler, ResamplerSizes, SquareResampler
from minicpm_core.vision.slicing import read_object
from minicpm_core.vision.tower import Tower, TowerSizes
from minicpm_core.weights import StoredTensor, Tensors, open_tensors

logger = logging.getLogger(__name__)

TOWER, RESAMPLER = "vpm.", "resampler."
AUDIO = ("apm.", "tts.", "audio_projection_layer.", "audio_avg_pooler.")
_TIMM_HEADS = {"vit_so400m_patch14_siglip_384": 16}
"""timm 0.9.10, vision_transformer.py; neither config.json nor the tensors tell the number of heads."""

_MOST = 1024
_TIMM_NAMES = (
    ("embeddings.patch_embedding", "patch_embed.proj"),
    ("embeddings.position_embedding.weight", "pos_embed"),
    ("encoder.layers", "blocks"),
    ("layer_norm", "norm"),
    ("self_attn.out_proj", "attn.proj"),
    ("post_layernorm", "norm"),
)


def load_parts(checkpoint: Checkpoint, *, dtype: Any, device: str, quantization_config: Any = None) -> Any:
    """Return the model with every tensor taken from the checkpoint, none held twice.

    Raises:
        ValueError: tensors are missing or have the wrong shape.
    """
    vision, config = checkpoint.family.vision, checkpoint.config
    assert vision is not None
    with open_tensors(checkpoint.weight_files) as stored:
        tensors = unpacked({name: tensor for name, tensor in stored.items() if not name.startswith(LLM)})
        tower, resampler = load_sight(checkpoint, tensors, dtype=dtype, device=device)
    llm = load_weights(checkpoint, dtype=dtype, device=device, quantization_config=quantization_config)
    mean, std = read_scale(checkpoint.folder, "norm_mean", "norm_std")
    return VisionLanguageModel(
        llm,
        tower,
        resampler,
        vision,
        mean=mean,
        std=std,
        together=bool(config.get("batch_vision_input", True)),
    ).eval()


def load_sight(checkpoint: Checkpoint, tensors: Tensors, *, dtype: Any, device: str) -> tuple[Tower, Resampler]:
    """Return tower and resampler with their tensors, which are named as in the official files.

    Raises:
        ValueError: tensors are missing or have the wrong shape.
    """
    vision = checkpoint.family.vision
    assert vision is not None
    timm = vision.tower == "square"
    tower, resampler = _build(checkpoint, tensors, timm=timm, square_keys=not vision.sliced)
    used = _fill(tower, _from_timm if timm else _same_name, tensors, dtype, device)
    used |= _fill(resampler, lambda name: (RESAMPLER + name, None), tensors, dtype, device)
    _say_ignored(checkpoint.name, set(tensors) - used)
    return tower, resampler


def _build(checkpoint: Checkpoint, tensors: Tensors, *, timm: bool, square_keys: bool) -> tuple[Tower, Resampler]:
    """Return both modules without memory; sizes come from the tensors, the rest from config.json."""
    config = checkpoint.config
    vision_config = read_object(config, "vision_config")
    layer = TOWER + ("blocks" if timm else "encoder.layers")
    stored = len({match[1] for name in tensors if (match := re.match(re.escape(layer) + r"\.(\d+)\.", name))})
    patch = _shape(tensors, TOWER + ("patch_embed.proj" if timm else "embeddings.patch_embedding") + ".weight")
    places = _shape(tensors, TOWER + ("pos_embed" if timm else "embeddings.position_embedding.weight"))[-2]
    if math.isqrt(places) ** 2 != places:
        raise ValueError(f"{checkpoint.folder}: the tower's position table has {places} places, which is no square")
    sizes = TowerSizes(
        hidden=patch[0],
        intermediate=_shape(tensors, f"{layer}.0.mlp.fc1.weight")[0],
        layers=_layers(config, vision_config, stored),
        heads=_timm_heads(checkpoint) if timm else _whole(vision_config, "num_attention_heads", 16),
        patch=patch[-1],
        places=places,
        eps=float(vision_config.get("layer_norm_eps", 1e-6)),
        exact_gelu=timm,
    )
    queries, embed = _shape(tensors, RESAMPLER + "query")
    wanted = config.get("query_num")
    if wanted and wanted != queries:
        raise ValueError(f"{checkpoint.folder}: query_num is {wanted} in config.json, but {queries} queries are stored")
    shape = ResamplerSizes(queries, embed, sizes.hidden, placed_queries=timm)
    with torch.device("meta"):
        return Tower(sizes), (SquareResampler if square_keys else Resampler)(shape)


def _layers(config: Any, vision_config: Any, stored: int) -> int:
    """Return the layers to run: all that are stored, but not a last one that the config drops."""
    if vision_config.get("num_hidden_layers") is None or "drop_vision_last_layer" not in config:
        return stored
    full = _whole(vision_config, "num_hidden_layers", stored)
    return min(full - 1 if config["drop_vision_last_layer"] else full, stored + 1)  # one more than stored is an error


def _timm_heads(checkpoint: Checkpoint) -> int:
    """Return the heads of a timm tower: by its published name, unless `timm_kwargs` (config.json, meta.json) tell."""
    folder = checkpoint.folder
    for source in (checkpoint.config, read_json(folder, "meta.json") if has_file(folder, "meta.json") else {}):
        if (kwargs := read_object(source, "timm_kwargs")).get("num_heads"):
            return _whole(kwargs, "num_heads", 1)
    name = str(checkpoint.config.get("vision_encoder", ""))
    if name.split(".")[0] not in _TIMM_HEADS:
        raise ValueError(
            f"{checkpoint.folder}: vision_encoder is {name!r}; known: {', '.join(_TIMM_HEADS)}. For another timm tower "
            'put {"timm_kwargs": {"num_heads": ...}} into config.json'
        )
    return _TIMM_HEADS[name.split(".")[0]]


def _whole(values: Any, key: str, default: int) -> int:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise ValueError(f"{key} of the vision tower is {value!r}; a whole number of 1 to {_MOST} is needed")
    return value


Source = tuple[str, int | None]
"""A stored tensor's name, and which third of it (q, k or v) is meant."""


def _same_name(name: str) -> Source:
    return TOWER + name, None


def _from_timm(name: str) -> Source:
    """Return where timm's layout keeps one of our tower's tensors."""
    if match := re.fullmatch(r"encoder\.(layers\.\d+)\.self_attn\.([qkv])_proj\.(\w+)", name):
        return f"{TOWER}{match[1].replace('layers', 'blocks')}.attn.qkv.{match[3]}", "qkv".index(match[2])
    for ours, theirs in _TIMM_NAMES:
        name = name.replace(ours, theirs)
    return TOWER + name, None


def _find(tensors: Tensors, name: str) -> StoredTensor:
    if name not in tensors:
        raise ValueError(f"the files lack the tensor {name} that config.json and the other tensors ask for")
    return tensors[name]


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    shape = _find(tensors, name).shape
    if len(shape) < 2 or not all(shape):
        raise ValueError(
            f"the tensor {name} has shape {list(shape)}; a MiniCPM-V checkpoint has two or more sizes there"
        )
    return shape


def _fill(module: nn.Module, find: Callable[[str], Source], tensors: Tensors, dtype: Any, device: str) -> set[str]:
    """Give a module without memory its tensors, one by one; return the names that were read."""
    used = set()
    for name, parameter in list(module.named_parameters()):
        stored, third = find(name)
        shape = list(_find(tensors, stored).shape)
        needed = list(parameter.shape) if third is None else [3 * parameter.shape[0], *parameter.shape[1:]]
        if shape != needed and shape != [1, *needed]:  # timm's position table has a batch dimension
            raise ValueError(f"the tensor {stored} has shape {shape}, and config.json asks for {needed}")
        tensor = tensors[stored][...]
        tensor = tensor.chunk(3)[third].clone() if third is not None else tensor.view(needed)
        owner, _, leaf = name.rpartition(".")
        parameter = nn.Parameter(tensor.to(device=device, dtype=dtype), requires_grad=False)
        setattr(module.get_submodule(owner), leaf, parameter)
        used.add(stored)
    return used


def _say_ignored(name: str, unused: set[str]) -> None:
    audio = {tensor for tensor in unused if tensor.startswith(AUDIO)}
    if audio:
        logger.warning("%s: %d tensors of the audio part are ignored; text and pictures work", name, len(audio))
    if rest := sorted(unused - audio):
        logger.warning("%s: ignored tensors: %s", name, ", ".join(rest[:10]))
