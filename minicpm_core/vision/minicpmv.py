"""MiniCPM-V 1.0 to 4.5 and the picture part of o-2.6 and o-4.5: one torch module from native parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.files import has_file, read_json
from minicpm_core.vision import Vision
from minicpm_core.vision.prompt import Markers, Picture
from minicpm_core.vision.slicing import SliceRule, slice_image
from minicpm_core.weights import Tensors

if TYPE_CHECKING:
    from PIL.Image import Image

    from minicpm_core.checkpoints import Checkpoint

LLM = "llm."
"""Prefix of the language model's tensors."""

_QUERIES = 64
_VIEW = 448
"""Side in pixels of V-1.0's only view."""


@dataclass(frozen=True)
class SliceReader:
    """Cuts pictures as a checkpoint's own files say."""

    rule: SliceRule
    markers: Markers
    queries: int
    vision: Vision
    numbered: bool
    view: int = _VIEW

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> SliceReader:
        """Return the reader of a checkpoint."""
        vision = checkpoint.family.vision
        assert vision is not None
        config, preprocessor = checkpoint.config, read_preprocessor(checkpoint.folder)
        queries = config.get("query_num") or preprocessor.get("image_feature_size") or _QUERIES
        numbered = preprocessor.get("use_image_id", config.get("use_image_id", True)) and not vision.nested_slices
        return cls(
            SliceRule.read(config, preprocessor),
            Markers.read(preprocessor),
            int(queries),
            vision,
            bool(numbered),
            int(config.get("image_size") or _VIEW),
        )

    def read(self, image: Image, number: int) -> Picture:
        """Cut the picture and write its placeholder; the views are uint8 arrays, [height, width, 3]."""
        import numpy as np

        if self.vision.sliced:
            views, grid = slice_image(image, self.rule)
        else:
            views, grid = [image.resize((self.view, self.view), resample=3)], None  # 3: bicubic
        text = self.markers.write(
            [self.queries] * len(views),
            grid[0] if grid else 1,
            number=number if self.numbered else None,
            nested=self.vision.nested_slices,
        )
        return Picture(text, tuple(np.asarray(view) for view in views))


def read_preprocessor(folder: Path) -> Mapping[str, Any]:
    """Return the content of preprocessor_config.json, {} where there is none."""
    name = "preprocessor_config.json"
    return read_json(folder, name) if has_file(folder, name) else {}


def language_part(tensors: Tensors) -> Tensors:
    """Return the language model's tensors under the names of its class in transformers."""
    return {name.removeprefix(LLM): tensor for name, tensor in tensors.items() if name.startswith(LLM)}


def load_pictures(checkpoint: Checkpoint) -> SliceReader:
    """Return what makes pictures ready for this checkpoint; needs no weights."""
    return SliceReader.open(checkpoint)


def load_model(checkpoint: Checkpoint, *, dtype: Any, device: str, quantization_config: Any = None) -> Any:
    """Return the whole model in eval mode: language model, tower and resampler."""
    from minicpm_core.vision.loading import load_parts

    return load_parts(checkpoint, dtype=dtype, device=device, quantization_config=quantization_config)
