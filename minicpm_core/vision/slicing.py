"""How MiniCPM-V cuts a picture, from 2.0 on: one small view of the whole, and tiles where it is large.

Guo et al. 2024 (LLaVA-UHD), section 3.1, with the rounding of the official image processor: the pixels are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minicpm_core.vision.resizing import resize

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]
"""(width, height) in pixels, or (columns, rows) of a grid."""


@dataclass(frozen=True)
class SliceRule:
    """The numbers of the cutting.

    Args:
        max_slices: most tiles beside the whole view; 1 means that nothing is cut.
        resolution: side in pixels of a square with the area that a view or tile should have.
        patch: side in pixels of the tower's patches.
        merge: patches per side that become one token; every view is a multiple of patch * merge.
        upsize: pictures smaller than resolution² are enlarged.
    """

    max_slices: int = 9
    resolution: int = 448
    patch: int = 14
    merge: int = 1
    upsize: bool = True

    def __post_init__(self) -> None:
        for name, most in (("max_slices", 256), ("resolution", 4096), ("patch", 256), ("merge", 16)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"{name} of the picture slicing is {value!r}; a whole number of 1 to {most} is needed")

    @classmethod
    def read(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any], **more: Any) -> SliceRule:
        """Return the rule of a checkpoint: preprocessor_config.json first, then config.json, then the defaults."""
        given = dict(config) | dict(read_object(config, "slice_config")) | dict(preprocessor)
        values = {"max_slices": "max_slice_nums", "resolution": "scale_resolution", "patch": "patch_size"}
        rule = {name: given[key] for name, key in values.items() if given.get(key) is not None}
        return cls(**rule | more if given.get("slice_mode", True) else rule | more | {"max_slices": 1})


def read_object(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under `key`, {} where there is none; ValueError where it is something else."""
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} in config.json is a {type(value).__name__}; an object is needed")
    return value


def choose_grid(size: Size, rule: SliceRule) -> Size | None:
    """Return the (columns, rows) of tiles for a picture, None where it is not cut."""
    width, height = size
    multiple = min(math.ceil(width * height / (rule.resolution * rule.resolution)), rule.max_slices)
    if multiple <= 1:
        return None
    counts = [n for n in (multiple - 1, multiple, multiple + 1) if 1 < n <= rule.max_slices]
    grids = [(columns, n // columns) for n in counts for columns in range(1, n + 1) if n % columns == 0]
    log_ratio = math.log(width / height)
    if rule.merge > 1:  # the newer processor prefers more rows where two grids fit equally well
        grids.sort(key=lambda grid: -grid[1])
    return min(grids, key=lambda grid: abs(log_ratio - math.log(grid[0] / grid[1])))


def slice_image(image: Image, rule: SliceRule) -> tuple[list[Image], Size | None]:
    """Return the whole view followed by the tiles row by row, and the grid (None where there are no tiles)."""
    grid = choose_grid(image.size, rule)
    view = resize(image, _fit(image.size, rule, upscale=grid is None and rule.upsize))
    if grid is None:
        return [view], None
    columns, rows = grid
    cell = _fit((_align(image.width, columns) / columns, _align(image.height, rows) / rows), rule, upscale=True)
    refined = resize(image, (cell[0] * columns, cell[1] * rows))
    boxes = [(x * cell[0], y * cell[1]) for y in range(rows) for x in range(columns)]
    return [view, *(refined.crop((x, y, x + cell[0], y + cell[1])) for x, y in boxes)], grid


def _fit(size: tuple[float, float], rule: SliceRule, *, upscale: bool) -> Size:
    """Return the size of about resolution² pixels with the same aspect, in whole patches."""
    width, height = size
    if upscale or width * height > rule.resolution * rule.resolution:
        ratio = width / height
        height = int(rule.resolution / math.sqrt(ratio))
        width = int(height * ratio)
    return _align(width, rule.patch * rule.merge), _align(height, rule.patch * rule.merge)


def _align(length: float, unit: int) -> int:
    return max(round(length / unit) * unit, unit)
