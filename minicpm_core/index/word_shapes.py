"""An embedder of pages that needs no model: it finds printed words by their shapes."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

DIMENSION = 2048
_SHAPE = (8, 32)  # rows and columns that every word is brought to
_SHARPNESS = 2.5  # a shape this many times as different from another hardly counts as the same
_FONT_SIZE = 32
_SHORTEST = 4  # letters of a word that is looked for


class WordShapes:
    """Counts the shapes of words, so that a question's words, printed, are near the pages that show them.

    A vector is the sum of random Fourier features (Rahimi and Recht 2007) of the words' shapes: the product of two
    tells how many words look alike. It sees no meaning, and only dark print on light paper in a font like Pillow's own
    (`ImageFont.load_default`): for demos and tests of the way from pixels to pages.
    """

    name = "demo"
    memory_bytes = DIMENSION * (_SHAPE[0] * _SHAPE[1] + 2) * 4

    def embed_images(self, images: Sequence[Image]) -> list[list[float]]:
        """Return one vector of length 1 per page, [pages][DIMENSION]."""
        return [_embed(find_words(image)) for image in images]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, [DIMENSION]."""
        words = re.findall(r"\w+", text)
        words = [word for word in words if len(word) >= _SHORTEST] or words
        shapes = {
            word: [s for form in (word.lower(), word.capitalize()) for s in find_words(_print(form))]
            for word in {*words}
        }
        return _embed([shape for word in words for shape in shapes[word]])


def find_words(image: Image) -> list[Any]:
    """Return the shapes of the words on a page, [8, 32 + 1] floats of 0 to 1 each, line by line."""
    import numpy as np

    grey = np.asarray(image.convert("L"), dtype=np.float32)
    ink = np.clip((grey.max() - grey) / max(float(grey.max() - grey.min()), 1.0), 0.0, 1.0)
    found = []
    for top, bottom in _runs(ink.max(axis=1) > 0.4, 2):
        line = ink[top:bottom]
        for left, right in _runs(line.max(axis=0) > 0.4, max(2, round(0.22 * (bottom - top)))):
            word = line[:, left:right]
            rows = np.flatnonzero(word.max(axis=1) > 0.4)
            word = word[rows[0] : rows[-1] + 1]
            if word.shape[1] >= 1.5 * (bottom - top):
                found.append(_to_shape(word))
    return found


def _runs(marks: Any, gap: int) -> list[tuple[int, int]]:
    """Return [start, end) of the stretches of True; those with less than `gap` between them are one."""
    runs: list[tuple[int, int]] = []
    for place in (int(place) for place in marks.nonzero()[0]):
        if runs and place - runs[-1][1] < gap:
            runs[-1] = runs[-1][0], place + 1
        else:
            runs.append((place, place + 1))
    return runs


def _to_shape(word: Any) -> Any:
    import numpy as np
    from PIL import Image

    rows, columns = _SHAPE
    small = Image.fromarray((word * 255).astype(np.uint8)).resize((columns, rows), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32).ravel() / 255
    pixels = pixels / max(float(np.linalg.norm(pixels)), 1e-6)
    return np.append(pixels, 0.08 * word.shape[1] / word.shape[0])


def _print(word: str) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    page = Image.new("RGB", (_FONT_SIZE * (len(word) + 2), 3 * _FONT_SIZE), "white")
    ImageDraw.Draw(page).text((_FONT_SIZE, _FONT_SIZE), word, fill="black", font=font)
    return page


@functools.cache
def _features() -> tuple[Any, Any]:
    import numpy as np

    numbers = np.random.default_rng(0)
    directions = numbers.normal(size=(_SHAPE[0] * _SHAPE[1] + 1, DIMENSION)).astype(np.float32) * _SHARPNESS
    return directions, numbers.uniform(0, 2 * np.pi, DIMENSION).astype(np.float32)


def _embed(shapes: Sequence[Any]) -> list[float]:
    import numpy as np

    if not shapes:
        return [DIMENSION**-0.5] * DIMENSION
    directions, phases = _features()
    total = np.cos(np.stack(shapes).astype(np.float32) @ directions + phases).sum(axis=0)
    vector: list[float] = (total / max(float(np.linalg.norm(total)), 1e-6)).tolist()
    return vector
