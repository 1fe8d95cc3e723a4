"""Resized pictures have the same pixels whatever Pillow is installed."""

from __future__ import annotations

import hashlib

import numpy as np
import PIL
import pytest
from PIL import Image

from minicpm_core.vision.resizing import resize


def _picture(width: int, height: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255
    return Image.fromarray(values)


def test_the_pixels_are_those_of_the_reference() -> None:
    digest = hashlib.sha256()
    for seed, (width, height, columns, rows) in enumerate(
        [(200, 200, 151, 100), (200, 200, 150, 100), (57, 331, 272, 295), (40, 30, 56, 42), (9, 9, 9, 5), (9, 9, 5, 9)]
    ):
        small = resize(_picture(width, height, seed), (columns, rows))
        assert small.size == (columns, rows)
        digest.update(small.tobytes())
    assert digest.hexdigest() == "7035a880ab05c1882096ce67b0e671b3bfa8c12986b9a3c7b5959ba2039d671d"


@pytest.mark.skipif(int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow before 13 resizes in another order")
def test_pillow_itself_resizes_so() -> None:
    sizes = np.random.default_rng(0).integers(1, 90, (300, 4)).tolist()
    taller = 0
    for seed, (width, height, columns, rows) in enumerate(sizes):
        picture = _picture(width, height, seed)
        assert resize(picture, (columns, rows)).tobytes() == picture.resize((columns, rows)).tobytes()
        taller += height - rows > max(0, 2 * (width - columns))
    assert 50 < taller < 250  # both orders were compared
