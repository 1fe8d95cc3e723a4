"""The vision part of a MiniCPM-V in a GGUF file of its own (mmproj): its tensors under their official names."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from minicpm_core.gguf.header import GgufHeader, read_header
from minicpm_core.weights import StoredTensor

if TYPE_CHECKING:
    from minicpm_core.gguf.checkpoint import GgufCheckpoint
    from minicpm_core.vision.model import VisionLanguageModel

logger = logging.getLogger(__name__)

_VERSIONS = {2: "2.5", 3: "2.6", 4: "2.6", 5: "4.0", 6: "4.5", 100045: "4.5"}
"""clip.minicpmv_version: which release of MiniCPM-V, or o, the part belongs to (llama.cpp, tools/mtmd/clip.cpp)."""
_LANGUAGE = {"2.5": ("llama",), "2.6": ("qwen2",), "4.0": ("minicpm", "llama"), "4.5": ("qwen3",)}
"""general.architecture of a release's language model."""
_FORMATS = {0: ("F32", "<f4"), 1: ("F16", "<f2"), 30: ("BF16", "<u2")}
"""Formats in GGUF that are numbers as they stand, and how NumPy reads them."""
_OUTER = {
    "v.patch_embd": "vpm.embeddings.patch_embedding",
    "v.position_embd": "vpm.embeddings.position_embedding",
    "v.post_ln": "vpm.post_layernorm",
    "resampler.kv": "resampler.kv_proj",
    "resampler.attn.out": "resampler.attn.out_proj",
}
_INNER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
}
_MADE = ("resampler.pos_embed_k",)
"""Sines that llama.cpp reads from the file, and that are computed here."""


def find_projector(model: GgufHeader) -> GgufHeader | None:
    """Return the head of the vision part that lies beside a model's file, the largest of several; None without one.

    It fits if its release has a language model of the same architecture, and embeddings are of the same width.
    """
    found = []
    width = model.field("embedding_length")
    for path in sorted(model.path.parent.glob("*.gguf")):
        if path == model.path or "mmproj" not in path.name.lower():
            continue
        try:
            header = read_header(path)
            release = read_version(header)
        except ValueError as error:
            logger.warning("%s is not used: %s", path.name, error)
            continue
        fits = model.architecture in _LANGUAGE[release]
        if fits and header.tensors.get("resampler.proj.weight", (0,))[0] == width:
            found.append(header)
    return max(found, key=lambda header: header.path.stat().st_size, default=None)


def read_version(header: GgufHeader) -> str:
    """Return the release that a vision part belongs to, such as "2.6".

    Raises:
        ValueError: it is of another kind, or of a release that is not known.
    """
    fields = header.metadata
    kind = fields.get("clip.vision.projector_type", fields.get("clip.projector_type"))
    version = fields.get("clip.minicpmv_version")
    if header.architecture != "clip" or kind != "resampler" or version not in _VERSIONS:
        raise ValueError(
            f"{header.path} holds a projector {kind!r} of version {version!r}; accepted: resampler, version "
            f"{', '.join(map(str, _VERSIONS))}; for other releases load the checkpoint's folder"
        )
    return _VERSIONS[version]


def read_vision_config(header: GgufHeader) -> dict[str, Any]:
    """Return what a vision part says under the names of config.json."""

    def number(name: str) -> int:
        value = header.metadata.get(f"clip.vision.{name}")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65536:
            raise ValueError(f"{header.path}: clip.vision.{name} is {value!r}; a whole number of 1 to 65536 is needed")
        return value

    eps = float(header.metadata.get("clip.vision.attention.layer_norm_epsilon", 1e-6))
    vision = {"num_hidden_layers": number("block_count"), "num_attention_heads": number("attention.head_count")}
    vision |= {"hidden_size": number("embedding_length"), "intermediate_size": number("feed_forward_length")}
    return {
        "query_num": header.tensors.get("resampler.query", (0,))[0],
        "slice_config": {"scale_resolution": number("image_size"), "patch_size": number("patch_size")},
        "vision_config": vision | {"layer_norm_eps": eps},
        "drop_vision_last_layer": False,  # the converter has counted the layers that are used
    }


def load_projector(checkpoint: GgufCheckpoint, llm: Any) -> VisionLanguageModel:
    """Return tower and resampler, in 32 bits on the CPU, around a model whose pictures they read.

    Raises:
        ValueError: tensors are missing, have the wrong shape or are quantised.
    """
    import torch

    from minicpm_core.vision.loading import load_sight
    from minicpm_core.vision.model import VisionLanguageModel

    header, vision = checkpoint.projector, checkpoint.family.vision
    assert header is not None
    assert vision is not None
    tensors = open_projector(header)
    tower, resampler = load_sight(checkpoint, tensors, dtype=torch.float32, device="cpu")
    mean, std = (_scale(header, name) for name in ("image_mean", "image_std"))
    return VisionLanguageModel(llm, tower, resampler, vision, mean=mean, std=std).eval()


def open_projector(header: GgufHeader) -> Mapping[str, StoredTensor]:
    """Return the tensors of a vision part under the official names; nothing is read yet.

    Raises:
        ValueError: a tensor is quantised.
    """
    made: dict[str, StoredTensor] = {}
    shapes = header.tensors
    hidden = shapes.get("v.patch_embd.weight", (0,))[0]
    first = "ffn_down" if shapes.get("v.blk.0.ffn_down.weight", (hidden,))[-1] == hidden else "ffn_up"

    def add(name: str, shape: tuple[int, ...], read: Callable[[], Any]) -> None:
        made[name] = StoredTensor(name, "F32", shape, read)

    for name, shape in shapes.items():
        stem, _, kind = name.rpartition(".")
        read = partial(_read, header, name)
        if block := re.fullmatch(r"v\.blk\.(\d+)\.(\w+)", stem):
            inner = {first: "mlp.fc1"}.get(block[2], "mlp.fc2") if "ffn" in block[2] else _INNER.get(block[2])
            add(f"vpm.encoder.layers.{block[1]}.{inner or block[2]}.{kind}", shape, read)
        elif stem == "resampler.attn.q":
            parts = [f"resampler.attn.{part}.{kind}" for part in "qkv"]
            add(f"resampler.attn.in_proj_{kind}", (3 * shape[0], *shape[1:]), partial(_join, header, parts))
        elif name == "resampler.proj.weight":
            add("resampler.proj", shape[::-1], partial(_turned, header, name))
        elif stem not in ("resampler.attn.k", "resampler.attn.v") and name not in _MADE:
            add(f"{_OUTER[stem]}.{kind}" if stem in _OUTER else name, shape, read)
    return made


def _read(header: GgufHeader, name: str) -> Any:
    import numpy as np
    import torch

    if name not in header.places:
        raise ValueError(f"{header.path} lacks the tensor {name}; convert the model again")
    kind, place = header.places[name]
    if kind not in _FORMATS:
        raise ValueError(f"{header.path}: the tensor {name} is quantised; use the mmproj file in F16, BF16 or F32")
    shape = header.tensors[name]
    data = np.fromfile(header.path, dtype=_FORMATS[kind][1], count=int(np.prod(shape)), offset=place)
    if data.size < np.prod(shape):
        raise ValueError(f"{header.path} ends within the tensor {name}; download it again")
    tensor = torch.from_numpy(data.view(np.int16) if kind == 30 else data)
    return (tensor.view(torch.bfloat16) if kind == 30 else tensor).float().reshape(shape)


def _join(header: GgufHeader, names: list[str]) -> Any:
    import torch

    parts = [_read(header, name) for name in names]
    if len({part.shape for part in parts}) > 1:
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"{header.path} is damaged: {', '.join(names)} have the shapes {shapes}; download it again")
    return torch.cat(parts)


def _turned(header: GgufHeader, name: str) -> Any:
    return _read(header, name).T.contiguous()


def _scale(header: GgufHeader, name: str) -> tuple[float, ...]:
    values = header.metadata.get(f"clip.vision.{name}", [0.5, 0.5, 0.5])
    if not isinstance(values, list) or len(values) != 3 or (name == "image_std" and min(values) <= 0):
        raise ValueError(f"{header.path}: clip.vision.{name} is {values!r}; three numbers are needed")
    return tuple(float(value) for value in values)
