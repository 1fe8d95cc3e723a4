"""MiniCPM-V 4.6, 4.7 and OCR: models of transformers, without its processors, which need torchvision."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minicpm_core.files import has_file, read_json
from minicpm_core.picture_settings import MAX_FRAMES, MAX_STACK, MERGES
from minicpm_core.vision.minicpmv import SliceReader, read_preprocessor, read_scale
from minicpm_core.vision.prompt import Markers
from minicpm_core.vision.slicing import SliceRule

if TYPE_CHECKING:
    from minicpm_core.checkpoints import Checkpoint

logger = logging.getLogger(__name__)


def load_pictures(checkpoint: Checkpoint) -> SliceReader:
    """Return what makes pictures ready for this checkpoint; needs no weights."""
    config, preprocessor = checkpoint.family.translate(checkpoint.config), read_preprocessor(checkpoint.folder)
    if config.downsample_mode not in MERGES:
        raise ValueError(f"downsample_mode is {config.downsample_mode!r}; accepted: {', '.join(MERGES)}")
    upsize = preprocessor.get("small_image_upsize", "always")
    if upsize == "adaptive":
        logger.warning("%s: small pictures are always enlarged, not only those with small writing", checkpoint.name)
    sizes = {"patch": int(config.vision_config.patch_size), "merge": MERGES[config.downsample_mode]}
    return SliceReader(
        SliceRule.read({}, preprocessor, **sizes, upsize=upsize != "never"),
        read_markers(checkpoint),
        None,
        numbered=bool(preprocessor.get("use_image_id", True)),
        between_frames="",
        mode=config.downsample_mode,
        frames=_read_count(checkpoint, "max_num_frames", 128, MAX_FRAMES),
        stacked=_read_count(checkpoint, "stack_frames", 1, MAX_STACK),
    )


def _read_count(checkpoint: Checkpoint, key: str, usual: int, most: int) -> int:
    """Return a number of frames that the checkpoint's files ask for, the published one where they are silent."""
    name = "video_preprocessor_config.json"
    stored = read_json(checkpoint.folder, name) if has_file(checkpoint.folder, name) else {}
    count = stored.get(key, usual)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count:
        raise ValueError(f"{key} in {name} is {count!r}; a whole number of 1 or more is needed")
    return min(count, most)


def read_markers(checkpoint: Checkpoint) -> Markers:
    """Return the placeholder texts that tokenizer_config.json names, the published ones where it is silent."""
    name = "tokenizer_config.json"
    stored = read_json(checkpoint.folder, name) if has_file(checkpoint.folder, name) else {}
    named: dict[str, Any] = {}
    for value in (stored, stored.get("extra_special_tokens"), stored.get("model_specific_special_tokens")):
        named |= value if isinstance(value, Mapping) else {}

    def text(key: str, default: str) -> str:
        value = named.get(key) or default
        return str(value.get("content", default)) if isinstance(value, Mapping) else str(value)

    known = Markers()
    return Markers(
        text("image_token", "<|image_pad|>"),
        (text("image_start_token", known.image[0]), text("image_end_token", known.image[1])),
        (text("slice_start_token", known.slice[0]), text("slice_end_token", known.slice[1])),
        (text("image_id_start_token", known.number[0]), text("image_id_end_token", known.number[1])),
    )


def load_model(checkpoint: Checkpoint, *, dtype: Any, device: str, quantization_config: Any = None) -> Any:
    """Return the whole model in eval mode."""
    from minicpm_core.checkpoints import load_weights
    from minicpm_core.vision.native_model import NativeVisionModel

    mean, std = read_scale(checkpoint.folder, "image_mean", "image_std")
    model = load_weights(checkpoint, dtype=dtype, device=device, quantization_config=quantization_config)
    return NativeVisionModel(model, mean=mean, std=std).eval()
