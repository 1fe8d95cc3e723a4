"""What reading a picture takes beside the weights, from the checkpoint's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minicpm_core.checkpoints import Checkpoint
from minicpm_core.picture_settings import MERGES
from minicpm_core.vision import BATCH
from minicpm_core.vision.minicpmv import read_preprocessor
from minicpm_core.vision.slicing import SliceRule

_HIDDEN, _INTERMEDIATE = 1152, 4304
"""The published towers (SigLIP So400m), where config.json does not tell."""
_ROUNDING = 1.13
"""Patches of a view beyond those of a square one: sides are rounded to whole patches (34 * 34 for 32 * 32)."""
_TOWER, _RESIDUAL = 2, 6
"""Products of the tower's MLP, and copies of its residual stream, that are there together."""
_QUERIES = 64
_REMEMBERED = 8
"""Pictures of the largest kind whose features are kept."""
_RESAMPLER = 6
"""Copies of all views' features in the resampler: keys and values, padded, and projected."""


@dataclass(frozen=True)
class PictureBytes:
    """Bytes for the largest picture of a prompt.

    Args:
        peak: of the tower and of what makes tokens of its features.
        token: that each token of the prompt takes more, since its embedding is made beforehand.
        cache: for the features of pictures that were seen before.
    """

    peak: int = 0
    token: int = 0
    cache: int = 0


NO_PICTURES = PictureBytes()


def count_pictures(checkpoint: Checkpoint, hidden: int, value: float) -> PictureBytes:
    """Return what pictures take; nothing for a family that does not see.

    Args:
        checkpoint: an open checkpoint.
        hidden: width of the language model.
        value: bytes of a number.
    """
    vision = checkpoint.family.vision
    if vision is None:
        return NO_PICTURES
    rule = SliceRule.read(checkpoint.config, read_preprocessor(checkpoint.folder))
    views = rule.max_slices + 1 if vision.sliced else 1
    patches = int((rule.resolution // rule.patch) ** 2 * _ROUNDING)
    width, middle = _sizes(checkpoint.config)
    kept = views * patches * (width + 3 * rule.patch**2)
    tower = min(views, BATCH) * patches * (_TOWER * middle + _RESIDUAL * width)
    native = vision.module.endswith(".native")
    resampler = 0 if native else views * patches * hidden * _RESAMPLER
    tokens = views * (patches // MERGES["16x"] ** 2 if native else int(checkpoint.config.get("query_num") or _QUERIES))
    return PictureBytes(
        int((kept + max(tower, resampler)) * value),
        int(2 * hidden * value),
        int(_REMEMBERED * tokens * hidden * value),
    )


def _sizes(config: Mapping[str, Any]) -> tuple[int, int]:
    given = config.get("vision_config")
    sizes = [given.get(key) if isinstance(given, Mapping) else None for key in ("hidden_size", "intermediate_size")]
    width, middle = sizes
    return width if isinstance(width, int) else _HIDDEN, middle if isinstance(middle, int) else _INTERMEDIATE
