"""Pictures in another size, in the same pixels whatever Pillow is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Return a picture in `size` (width, height), bicubic, as Pillow 13 resizes it.

    Rows and columns are resampled one after the other, and rounded between. Pillow before 13 always begins with the
    width; from 13 on, as the reference checkpoints were made, with the height where that shrinks by more than twice as
    many pixels as the width does (found by comparing both orders).
    """
    from PIL.Image import Resampling

    (width, height), (columns, rows) = image.size, size
    height_first = height - rows > max(0, 2 * (width - columns))
    step = (width, rows) if height_first else (columns, height)
    return image.resize(step, Resampling.BICUBIC).resize(size, Resampling.BICUBIC)
