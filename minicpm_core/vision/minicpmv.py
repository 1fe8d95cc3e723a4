"""MiniCPM-V 1.0 to 4.5 and the picture part of o-2.6 and o-4.5: one torch module from native parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.files import has_file, read_json
from minicpm_core.picture_settings import MERGES, PictureSettings
from minicpm_core.vision.prompt import Markers, Picture
from minicpm_core.vision.resizing import resize
from minicpm_core.vision.slicing import Size, SliceRule, slice_image
from minicpm_core.vision.video import Video
from minicpm_core.weights import Tensors

if TYPE_CHECKING:
    from PIL.Image import Image

    from minicpm_core.checkpoints import Checkpoint

LLM = "llm."
"""Prefix of the language model's tensors."""

_QUERIES, _MOST_QUERIES = 64, 4096
_VIEW = 448
"""Side in pixels of V-1.0's only view."""


@dataclass(frozen=True)
class SliceReader:
    """Cuts pictures as a checkpoint's own files say.

    Args:
        rule: the numbers of the cutting.
        markers: the texts of the placeholder tokens.
        queries: tokens per view; None where it is one for each merged square of patches.
        numbered: the prompt tells a picture's number.
        nested: see `Vision.nested_slices`.
        temporal: see `Vision.temporal`.
        between_frames: what stands between the frames of a video.
        view: side in pixels of the only view of a family that does not cut, None where it does.
        mode: the `downsample_mode`, None where the family has none.
        frames: most frames that are taken from a video's file.
        stacked: frames of each second of a video's file, None where the family knows no pictures of several.
    """

    rule: SliceRule
    markers: Markers
    queries: int | None
    numbered: bool
    nested: bool = False
    view: int | None = None
    temporal: bool = False
    between_frames: str = "\n"
    mode: str | None = None
    frames: int = 64
    stacked: int | None = None

    @property
    def defaults(self) -> PictureSettings:
        """What the checkpoint's files say; None is what it does not have."""
        return PictureSettings(
            None if self.view else self.rule.max_slices,
            self.mode,
            None if self.view or self.nested else self.numbered,
            None if self.view or self.nested else self.frames,
            self.stacked,
        )

    def adapt(self, settings: PictureSettings) -> SliceReader:
        """Return a reader with these settings, which are complete."""
        slices, mode = settings.max_slice_nums or 1, settings.downsample_mode
        rule = replace(self.rule, max_slices=slices, merge=MERGES[mode] if mode else self.rule.merge)
        return replace(self, rule=rule, mode=mode, numbered=bool(settings.use_image_id))

    def read(self, image: Image, number: int) -> Picture:
        """Cut the picture and write its placeholder; the views are uint8 arrays, [height, width, 3]."""
        views, grid = self._cut(image, self.rule)
        text = self.markers.write(
            [self.count_tokens(view) for view in views],
            grid[0] if grid else 1,
            number=number if self.numbered else None,
            nested=self.nested,
        )
        return Picture(text, tuple(to_array(view) for view in views), mode=self.mode)

    def read_video(self, video: Video) -> list[Picture]:
        """Make the frames ready, uncut and without numbers; those that are read together share a placeholder.

        Raises:
            ValueError: a family older than 2.6, or frames together in one that reads them one by one.
        """
        if self.view or self.nested:
            raise ValueError("this model was trained on pictures and not on videos; give the frames as pictures")
        if video.together > 1 and not self.temporal:
            raise ValueError(f"together is {video.together}, but this model reads frames one by one; leave it out")
        rule = replace(self.rule, max_slices=1)
        pictures = []
        for frames, ids in video.groups():
            views = [self._cut(frame, rule)[0][0] for frame in frames]
            text = self.markers.write([self.count_tokens(views[0])], 1, number=None, nested=self.nested)
            times = ids if self.temporal else None
            pictures.append(Picture(text, tuple(map(to_array, views)), times, self.mode))
        return pictures

    def _cut(self, image: Image, rule: SliceRule) -> tuple[list[Image], Size | None]:
        if not self.view:
            return slice_image(image, rule)
        return [resize(image, (self.view, self.view))], None

    def count_tokens(self, view: Image) -> int:
        """Return the feature tokens of a view."""
        unit = self.rule.patch * self.rule.merge
        return self.queries or (view.width // unit) * (view.height // unit)


def to_array(image: Image) -> Any:
    """Return the pixels, uint8 of [height, width, 3]."""
    import numpy as np

    return np.asarray(image)


def read_preprocessor(folder: Path) -> Mapping[str, Any]:
    """Return the content of preprocessor_config.json, {} where there is none."""
    name = "preprocessor_config.json"
    return read_json(folder, name) if has_file(folder, name) else {}


def read_scale(folder: Path, mean: str, std: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what is taken off the channels of preprocessor_config.json, and by what they are divided then."""
    preprocessor = read_preprocessor(folder)
    values = []
    for key in (mean, std):
        given = preprocessor.get(key, (0.5, 0.5, 0.5))
        numbers = isinstance(given, (list, tuple)) and all(isinstance(n, (int, float)) and abs(n) < 1e6 for n in given)
        if not numbers or len(given) != 3 or (key == std and min(given) <= 0):
            raise ValueError(
                f"{key} in preprocessor_config.json is {given!r}; three numbers are needed, of std above 0"
            )
        values.append(tuple(float(n) for n in given))
    return values[0], values[1]


def language_part(tensors: Tensors) -> Tensors:
    """Return the language model's tensors under the names of its class in transformers."""
    return {name.removeprefix(LLM): tensor for name, tensor in tensors.items() if name.startswith(LLM)}


def load_pictures(checkpoint: Checkpoint) -> SliceReader:
    """Return what makes pictures ready for this checkpoint; needs no weights."""
    vision, config = checkpoint.family.vision, checkpoint.config
    assert vision is not None
    preprocessor = read_preprocessor(checkpoint.folder)
    queries = config.get("query_num") or preprocessor.get("image_feature_size") or _QUERIES
    if not isinstance(queries, int) or not 1 <= queries <= _MOST_QUERIES:
        raise ValueError(f"query_num in config.json is {queries!r}; a whole number of 1 to {_MOST_QUERIES} is needed")
    return SliceReader(
        SliceRule.read(config, preprocessor),
        Markers.read(preprocessor),
        queries,
        numbered=bool(preprocessor.get("use_image_id", config.get("use_image_id", True))) and not vision.nested_slices,
        nested=vision.nested_slices,
        temporal=vision.temporal,
        view=None if vision.sliced else int(config.get("image_size") or _VIEW),
    )


def load_model(checkpoint: Checkpoint, *, dtype: Any, device: str, quantization_config: Any = None) -> Any:
    """Return the whole model in eval mode: language model, tower and resampler."""
    from minicpm_core.vision.loading import load_parts

    return load_parts(checkpoint, dtype=dtype, device=device, quantization_config=quantization_config)
