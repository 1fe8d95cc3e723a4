"""Pictures in any form -> upright RGB images of a bounded size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from minicpm_core.media import Kind, read_bytes
from minicpm_core.picture_settings import PictureSettings

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before they are decoded; a decoded one takes three bytes per pixel."""
MAX_ASPECT = 1000
"""Of a longer strip, a view of the usual area would have thousands of patches in one row."""
MAX_FILE_BYTES = 128 * 2**20
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF")
"""Formats that are read; others of Pillow's start outside programs (EPS) or are never pictures of users."""

_HEIC = "in HEIC, the format of many phones, which is not decoded here: save or send it as JPEG"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

PICTURE = Kind(
    "picture",
    ("image", "image_url"),
    "image/",
    "a PIL image, a NumPy array of bytes, a file's path, an http(s) URL, bytes, a data URI or base64 text",
)


def read_image(source: Any, settings: PictureSettings | None = None) -> Image:
    """Return the picture as an upright RGB image.

    Turned as its EXIF data says; transparent parts become white; 16 bit per channel become 8; of several frames the
    first is taken.

    Args:
        source: a PIL image, a uint8 array [height, width] or [height, width, 3 or 4], a path, a URL (http, https,
            file), bytes, an open file, a data URI or base64 text.
        settings: whether URLs may lead to private addresses.

    Raises:
        FileNotFoundError: a path that does not exist.
        TypeError: another kind of value.
        ValueError: no picture in it, a damaged or too large one, or a URL that may not be downloaded.
        ConnectionError, TimeoutError: a URL that could not be downloaded.
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('pictures need Pillow: pip install "minicpm-integrations[vision]"') from error

    if isinstance(source, Image.Image):
        return _to_rgb(source, "the PIL image")
    if hasattr(source, "__array_interface__"):
        try:
            if source.ndim not in (2, 3):
                raise TypeError
            return _to_rgb(Image.fromarray(source), "the array")
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"an array of shape {source.shape} and type {source.dtype} is no picture; accepted: uint8 values, "
                "[height, width] or [height, width, 3 or 4]"
            ) from error
    return _decode(*read_bytes(source, PICTURE, MAX_FILE_BYTES, settings or PictureSettings()))


def is_picture(value: Any) -> bool:
    """Return whether a value can only be a picture: a PIL image, an array, a path or bytes, and no text or dict."""
    if isinstance(value, (bytes, bytearray, memoryview)) or hasattr(value, "__array_interface__"):
        return True
    return hasattr(value, "__fspath__") or callable(getattr(value, "getbbox", None))


def _decode(content: bytes, name: str) -> Image:
    from PIL import Image

    try:
        Image.init()
        image = Image.open(io.BytesIO(content), formats=[kind for kind in FORMATS if kind in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} is too large a picture ({error}); the limit is {MAX_PIXELS:,} pixels") from error
    except Exception as error:
        told = f"; it is {_HEIC}" if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS else ""
        raise ValueError(
            f"no picture can be read from {name} ({len(content)} bytes){told}; accepted formats: {', '.join(FORMATS)}"
        ) from error
    with image:
        return _to_rgb(image, name)


def _to_rgb(image: Image, name: str) -> Image:
    """Return a new upright RGB image; the size is checked before the pixels are decoded."""
    from PIL import ImageOps

    width, height = image.size
    if not width or not height:
        raise ValueError(f"{name} has {width} x {height} pixels; at least one is needed")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} has {width} x {height} = {width * height:,} pixels; the limit is {MAX_PIXELS:,}, make it smaller"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"{name} has {width} x {height} pixels; one side may be {MAX_ASPECT} times the other, cut it")
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        flat = _flatten(upright) if _has_usual_values(upright) else None
    except Exception as error:
        raise ValueError(f"{name} cannot be decoded ({error}); it may be cut off or damaged") from error
    if flat is None:
        low, high = upright.getextrema()
        raise ValueError(f"{name} has floating-point values of {low:g} to {high:g}; those of 0 to 255 are read")
    return flat


def _has_usual_values(image: Image) -> bool:
    """Tell whether a picture is one of whole numbers, or its values are not of another scale, such as 0 to 1."""
    if image.mode != "F":
        return True
    low, high = image.getextrema()
    return bool(0 <= low and (high == 0 or 1 < high <= 255))  # type: ignore[operator]


def _flatten(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):  # Pillow would cut 16-bit values off at 255 instead of scaling them
        return _from_16_bit(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _from_16_bit(image: Image) -> Image:
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
