"""Pictures in any form -> upright RGB images of a bounded size."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before they are decoded; a decoded one takes three bytes per pixel."""
MAX_ASPECT = 1000
"""Of a longer strip, a view of the usual area would have thousands of patches in one row."""
MAX_FILE_BYTES = 128 * 2**20
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF")
"""Formats that are read; others of Pillow's start outside programs (EPS) or are never pictures of users."""

ACCEPTED = "a PIL image, a NumPy array of bytes, a file's path, bytes, a data URI or base64 text"
_LONGEST_PATH = 4096
_SHORTEST_PICTURE = 64
_DATA_URI = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)


def read_image(source: Any) -> Image:
    """Return the picture as an upright RGB image.

    Turned as its EXIF data says; transparent parts become white; 16 bit per channel become 8; of several frames the
    first is taken.

    Args:
        source: a PIL image, a uint8 array [height, width] or [height, width, 3 or 4], a path, a file:// URL, bytes, a
            data URI or base64 text.

    Raises:
        FileNotFoundError: a path that does not exist.
        TypeError: another kind of value.
        ValueError: no picture in it, a damaged or too large one, or a URL that would have to be downloaded.
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
    if isinstance(source, Path):
        return _decode(_read_file(source), str(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "the bytes")
    if isinstance(source, str):
        return _from_text(source)
    raise TypeError(f"a picture is given as a {type(source).__name__}; accepted: {ACCEPTED}")


def find_source(part: Mapping[str, Any]) -> Any:
    """Return what a message part of type "image" or "image_url" gives as its picture.

    Raises:
        ValueError: no key of the part, or more than one, gives a picture.
    """
    keys_of_pictures = ("image", "image_url", "url", "path", "base64", "data")
    given = [(key, part[key]) for key in keys_of_pictures if not _is_empty(part.get(key))]
    if len(given) != 1:
        keys = ", ".join(str(key) for key in part) or "none"
        raise ValueError(
            f"a picture part needs exactly one of image, image_url, url, path, base64, data; its keys are: {keys}"
        )
    key, value = given[0]
    if key == "image_url" and isinstance(value, Mapping):
        value = value.get("url")
    return Path(value) if key == "path" and isinstance(value, str) else value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, bytes, Mapping)) and not value)


def _from_text(text: str) -> Image:
    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    if _DATA_URI.match(text):
        return _decode(_from_data_uri(text, shown), shown)
    scheme = text.partition("://")[0].lower() if "://" in text[:12] else ""
    if scheme in ("http", "https", "ftp"):
        raise ValueError(f"pictures are not downloaded: {shown}; download it yourself and give {ACCEPTED}")
    if scheme == "file":
        return _decode(_read_file(Path(url2pathname(urlsplit(text).path))), shown)
    if len(text) < _LONGEST_PATH and os.path.isfile(text):  # pathlib's raises for a name that is too long
        return _decode(_read_file(Path(text)), shown)
    try:
        return _decode(_from_base64(text), "the base64 text")
    except ValueError as error:
        if len(text) >= _SHORTEST_PICTURE and "." not in text:  # base64 has no dots, the name of a picture file has
            raise
        raise FileNotFoundError(f"no picture file {shown}; accepted: {ACCEPTED}") from error


def _from_data_uri(text: str, shown: str) -> bytes:
    match = _DATA_URI.match(text)
    assert match
    kind, options, content = match[1], match[2].lower(), text[match.end() :]
    if kind and not kind.lower().startswith("image/"):
        raise ValueError(f"the data URI {shown} is of type {kind}; a picture's type begins with image/")
    return _from_base64(content) if ";base64" in options else _limited(unquote_to_bytes(content))


def _from_base64(text: str) -> bytes:
    if len(text) > MAX_FILE_BYTES * 4 // 3 + 4:
        raise ValueError(f"the base64 text stands for more than {MAX_FILE_BYTES:,} bytes, the limit of a picture")
    compact = "".join(text.split()).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the text is no base64 ({error}); accepted: {ACCEPTED}") from error


def _read_file(path: Path) -> bytes:
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no picture file {path}; accepted: {ACCEPTED}")
    with path.open("rb") as stream:
        return _limited(stream.read(MAX_FILE_BYTES + 1))


def _limited(content: bytes) -> bytes:
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"the picture's file has more than {MAX_FILE_BYTES:,} bytes, the limit; make it smaller")
    return content


def _decode(content: bytes, name: str) -> Image:
    from PIL import Image

    content = _limited(content)
    try:
        Image.init()
        image = Image.open(io.BytesIO(content), formats=[kind for kind in FORMATS if kind in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} is too large a picture ({error}); the limit is {MAX_PIXELS:,} pixels") from error
    except Exception as error:
        raise ValueError(
            f"no picture can be read from {name} ({len(content)} bytes); accepted formats: {', '.join(FORMATS)}"
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
        return _flatten(upright)
    except Exception as error:
        raise ValueError(f"{name} cannot be decoded ({error}); it may be cut off or damaged") from error


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
