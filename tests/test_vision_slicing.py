"""The cutting of pictures at any size, against the official processor's arithmetic written out again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minicpm_core.vision.slicing import SliceRule, choose_grid, slice_image

SIDES = st.one_of(st.integers(1, 2000), st.integers(1, 30), st.integers(2000, 100_000))
RULES = st.builds(SliceRule, st.integers(1, 36), st.sampled_from([56, 98, 140, 448]), st.sampled_from([14, 16]))


def official_grid(width: int, height: int, most: int, resolution: int) -> list[int] | None:
    """`get_sliced_grid` of MiniCPM-V 2.6's image_processing_minicpmv.py."""
    log_ratio = math.log(width / height)
    multiple = min(math.ceil(width * height / (resolution * resolution)), most)
    if multiple <= 1:
        return None
    candidates = []
    for count in [multiple - 1, multiple, multiple + 1]:
        if count == 1 or count > most:
            continue
        m = 1
        while m <= count:
            if count % m == 0:
                candidates.append([m, count // m])
            m += 1
    best, least = [1, 1], float("inf")
    for grid in candidates:
        error = abs(log_ratio - math.log(grid[0] / grid[1]))
        if error < least:
            best, least = grid, error
    return best


@given(SIDES, SIDES, RULES)
def test_the_grid_is_the_official_one(width: int, height: int, rule: SliceRule) -> None:
    expected = official_grid(width, height, rule.max_slices, rule.resolution)
    found = choose_grid((width, height), rule)
    assert (list(found) if found else None) == expected
    if found:
        assert 2 <= found[0] * found[1] <= rule.max_slices


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.sampled_from(["16x", "4x"]))
def test_sizes_of_the_newer_families_are_those_of_transformers(width: int, height: int, mode: str) -> None:
    from transformers import MiniCPMV4_6ImageProcessorPil

    processor = MiniCPMV4_6ImageProcessorPil(scale_resolution=112)
    rule = SliceRule(resolution=112, merge=4 if mode == "16x" else 2)
    expected = processor.get_sliced_grid((height, width), 9, 112)
    found = choose_grid((width, height), rule)
    assert found == (tuple(reversed(expected)) if expected else None)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400), st.integers(1, 400), RULES, st.sampled_from([1, 2, 4]))
def test_views_are_whole_patches_and_tiles_are_equal(width: int, height: int, rule: SliceRule, merge: int) -> None:
    rule = SliceRule(rule.max_slices, rule.resolution, rule.patch, merge)
    views, grid = slice_image(Image.new("RGB", (width, height), (7, 8, 9)), rule)
    unit = rule.patch * merge
    assert all(view.width % unit == 0 and view.height % unit == 0 and min(view.size) > 0 for view in views)
    assert len(views) == 1 + (grid[0] * grid[1] if grid else 0)
    assert len({view.size for view in views[1:]}) <= 1
    assert all(np.asarray(view).reshape(-1, 3).tolist()[0] == [7, 8, 9] for view in views)


def test_tiles_are_cut_row_by_row_and_join_up_to_the_picture() -> None:
    colours = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, axis=2) * 40
    image = Image.fromarray(colours.repeat(140, axis=0).repeat(140, axis=1))
    (whole, *tiles), grid = slice_image(image, SliceRule(9, 140, 14))
    assert grid == (3, 2)
    assert [tile.getpixel((70, 70)) for tile in tiles] == [(40 * n,) * 3 for n in range(6)]
    rows = [np.concatenate([np.asarray(t) for t in tiles[start : start + 3]], axis=1) for start in (0, 3)]
    np.testing.assert_array_equal(np.concatenate(rows), np.asarray(image))
    assert whole.size == (168, 112)  # 140 / sqrt(1.5) = 114 rows, in whole patches


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((448, 448), (448, 448)),
        ((10, 10), (448, 448)),
        ((1, 1), (448, 448)),
        ((1, 1000), (14, 14168)),
        ((3, 40), (126, 1638)),
    ],
)
def test_small_pictures_are_one_enlarged_view(size: tuple[int, int], expected: tuple[int, int]) -> None:
    views, grid = slice_image(Image.new("RGB", size), SliceRule())
    assert grid is None
    assert [view.size for view in views] == [expected]


def test_the_rule_is_read_from_the_checkpoints_files() -> None:
    config = {"slice_config": {"max_slice_nums": 6, "scale_resolution": 98, "patch_size": 14}, "max_slice_nums": 3}
    assert SliceRule.read(config, {}) == SliceRule(6, 98, 14)
    assert SliceRule.read(config, {"max_slice_nums": 4}) == SliceRule(4, 98, 14)
    assert SliceRule.read({}, {}) == SliceRule(9, 448, 14)
    assert SliceRule.read({}, {"slice_mode": False}).max_slices == 1
    for values in ({"max_slice_nums": 0}, {"scale_resolution": -1}, {"patch_size": "14"}, {"patch_size": 10**9}):
        with pytest.raises(ValueError, match="of the picture slicing is"):
            SliceRule.read({}, values)
