"""Every form in which a picture can be given, down to the pixel values, and what is refused."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minicpm_core import PictureSettings, images, media, messages
from minicpm_core.images import PICTURE, read_image
from minicpm_core.media import find_source
from minicpm_core.messages import check_messages

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PNG = encode(Image.fromarray(PIXELS))


def forms(folder: Path) -> dict[str, Any]:
    file = folder / "a picture %41.png"
    file.write_bytes(PNG)
    text = base64.b64encode(PNG).decode()
    return {
        "PIL": Image.fromarray(PIXELS),
        "opened file": io.BytesIO(PNG),
        "path": file,
        "readable file": io.BytesIO(PNG),
        "path from home": "~/a picture %41.png",
        "path as text": str(file),
        "file URL": file.as_uri(),
        "bytes": PNG,
        "bytearray": bytearray(PNG),
        "memoryview": memoryview(PNG),
        "data URI": f"data:image/png;base64,{text}",
        "data URI without type": f"DATA:;charset=utf-8;BASE64,{text}",
        "data URI in percent": "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
        "base64": text,
        "base64 in lines": "\n".join(text[i : i + 76] for i in range(0, len(text), 76)),
        "base64 without padding": text.rstrip("="),
        "base64 for URLs": base64.urlsafe_b64encode(PNG).decode(),
    }


FORMS = ["PIL", "opened file", "path", "path as text", "file URL", "bytes", "bytearray", "memoryview", "data URI"]
FORMS += [
    "readable file",
    "path from home",
    "data URI without type",
    "data URI in percent",
    "base64",
    "base64 in lines",
    "base64 without padding",
]


@pytest.mark.parametrize("form", [*FORMS, "base64 for URLs"])
def test_every_form_gives_the_same_pixels(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = forms(tmp_path)[form]
    image = read_image(Image.open(source) if form == "opened file" else source)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG"])
def test_every_format_is_read(kind: str) -> None:
    colour = Image.new("RGB", (20, 10), (200, 100, 50))
    options = {"lossless": True} if kind == "WEBP" else {}
    found = np.asarray(read_image(encode(colour, kind, **options))).astype(int)
    assert found.shape == (10, 20, 3)
    assert np.abs(found - (200, 100, 50)).max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(orientation: int) -> None:
    corners = np.zeros((2, 3, 3), np.uint8)
    corners[0, 0] = (255, 0, 0)  # red is upper left in the upright picture of 3 x 2 pixels
    corners[1, 2] = (0, 0, 255)
    stored = {
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.transpose(1, 0, 2),
        6: np.rot90(corners, 1),
        7: corners.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(corners, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(read_image(encode(image, exif=exif))), corners)


def first_pixel(source: Any) -> tuple[int, ...]:
    pixel = read_image(source).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def test_transparent_parts_become_white() -> None:
    assert first_pixel(Image.new("RGBA", (2, 2), (255, 0, 0, 0))) == (255, 255, 255)
    assert first_pixel(Image.new("RGBA", (2, 2), (255, 0, 0, 255))) == (255, 0, 0)
    assert first_pixel(Image.new("RGBA", (2, 2), (0, 0, 0, 51))) == (204, 204, 204)
    assert first_pixel(Image.new("LA", (2, 2), (0, 0))) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert first_pixel(encode(palette)) == (10, 20, 30)
    assert first_pixel(encode(palette, transparency=1)) == (255, 255, 255)
    assert first_pixel(encode(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))) == (255, 255, 255)


def test_other_modes_become_rgb() -> None:
    assert first_pixel(Image.new("1", (2, 2), 1)) == (255, 255, 255)
    assert first_pixel(Image.new("L", (2, 2), 77)) == (77, 77, 77)
    assert first_pixel(Image.new("CMYK", (2, 2), (0, 255, 255, 0))) == (255, 0, 0)
    assert first_pixel(Image.new("F", (2, 2), 99.0)) == (99, 99, 99)
    assert first_pixel(Image.new("HSV", (2, 2), (0, 255, 255))) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_files_in_cmyk_have_the_right_colours(kind: str) -> None:
    found = np.array(first_pixel(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind)))
    assert np.abs(found - (255, 0, 0)).max() <= 3


def test_16_bit_values_are_scaled_and_not_cut_off() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    expected = [0, 1, 128, 255]
    for source in (encode(Image.fromarray(values)), encode(Image.fromarray(values), "TIFF")):
        assert np.asarray(read_image(source))[0, :, 0].tolist() == expected
    assert np.asarray(read_image(Image.fromarray(values.astype(np.int32))))[0, :, 2].tolist() == expected


def test_16_bits_per_channel_become_8() -> None:
    row = b"\0" + struct.pack(">HHH", 65535, 32896, 257) * 3
    pixels = [
        (b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * 2)),
        (b"IEND", b""),
    ]
    assert first_pixel(write_png(pixels)) == (255, 128, 1)


@pytest.mark.parametrize("values", [(0.0, 0.5), (0.0, 1.0), (-1.0, 9.0), (0.0, 300.0)])
def test_values_of_another_scale_are_refused(values: tuple[float, float]) -> None:
    source = encode(Image.fromarray(np.array([values], np.float32)), "TIFF")
    with pytest.raises(ValueError, match=f"floating-point values of {values[0]:g} to {values[1]:g}; those of 0 to 255"):
        read_image(source)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_pictures_of_phones_say_what_they_are(brand: bytes) -> None:
    with pytest.raises(ValueError, match="in HEIC, the format of many phones, which is not decoded here: save or send"):
        read_image(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(99))


def test_the_first_frame_of_several_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for kind in ("GIF", "PNG", "TIFF"):
        assert first_pixel(encode(frames[0], kind, save_all=True, append_images=frames[1:])) == (255, 0, 0)
    animated = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert first_pixel(animated) == (255, 0, 0)


def test_the_given_image_is_not_changed() -> None:
    given = Image.new("RGB", (3, 3), (9, 9, 9))
    read_image(given).putpixel((0, 0), (1, 1, 1))
    assert given.getpixel((0, 0)) == (9, 9, 9)


def header(width: int, height: int) -> bytes:
    """Return a PNG of any size that holds no pixels."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return write_png([(b"IHDR", size), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")])


def write_png(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


@pytest.mark.parametrize("side", [8_945, 9_500, 20_000, 1_000_000])
def test_huge_pictures_are_refused_before_they_are_decoded(side: int) -> None:
    with pytest.raises(ValueError, match=r"80,000,000"):
        read_image(header(side, side))


def test_a_large_pil_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="11 x 10 = 110 pixels; the limit is 100"):
        read_image(Image.new("RGB", (11, 10)))
    assert read_image(Image.new("RGB", (10, 10))).size == (10, 10)


def test_strips_are_refused() -> None:
    assert read_image(Image.new("RGB", (1000, 1))).size == (1000, 1)
    with pytest.raises(ValueError, match="1 x 1001 pixels; one side may be 1000 times the other"):
        read_image(Image.new("RGB", (1, 1001)))


def test_large_files_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 50)
    file = tmp_path / "large.png"
    file.write_bytes(PNG)
    for source in (
        file,
        PNG,
        base64.b64encode(PNG).decode(),
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
    ):
        with pytest.raises(ValueError, match="more than 50 bytes"):
            read_image(source)


@pytest.mark.parametrize("url", ["ftp://example.com/a.png", "s3://pictures/a.png"])
def test_urls_of_other_schemes_are_not_downloaded(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not downloaded; accepted are URLs with http, https and file"):
        read_image(url)


@pytest.mark.parametrize("scheme", ["http", "https", "HTTPS"])
@pytest.mark.parametrize("allowed", [False, True])
def test_urls_are_downloaded(scheme: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(media, "fetch", lambda url, **options: asked.append((url, options)) or PNG)
    url = f"{scheme}://example.com/a.png"
    image = read_image(url, PictureSettings(allow_private_urls=allowed))
    np.testing.assert_array_equal(np.asarray(image), PIXELS)
    assert asked == [(url, {"max_bytes": images.MAX_FILE_BYTES, "allow_private": allowed})]


def test_a_page_that_is_no_picture_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "fetch", lambda url, **options: b"<html>")
    with pytest.raises(ValueError, match=r"no picture can be read from 'https://example.com/a.png' \(6 bytes\)"):
        read_image("https://example.com/a.png")


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("no such file.png", FileNotFoundError, "no such file.png"),
        (Path("no such file.png"), FileNotFoundError, "no such file.png"),
        ("", FileNotFoundError, "accepted: a PIL image"),
        (b"", ValueError, "no picture can be read"),
        (b"just text", ValueError, "accepted formats: PNG"),
        ("data:text/html;base64,aGk=", ValueError, "of type text/html"),
        ("data:image/png;base64,!!!!", ValueError, "no base64"),
        (PNG[:60], ValueError, "cut off or damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ValueError, "accepted formats"),
        ("A" * 2000 + "!", ValueError, "no base64"),
        (3, TypeError, "given as a int"),
        (None, TypeError, "given as a NoneType"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_is_accepted(source: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read_image(source)


@pytest.mark.parametrize("cut", range(8, len(PNG) - 12, 7))
def test_damaged_files_give_one_kind_of_error(cut: int) -> None:
    broken = bytearray(PNG)
    broken[cut] ^= 0xFF
    for content in (bytes(broken), PNG[:cut]):
        try:
            read_image(content)
        except ValueError:
            continue


def test_a_part_gives_its_picture_under_one_of_the_known_keys(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(PNG)
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    parts = [
        {"type": "image", "image": file},
        {"type": "image", "path": str(file)},
        {"type": "image", "url": uri},
        {"type": "image", "base64": uri.partition(",")[2], "mime_type": "image/png"},
        {"type": "image", "data": PNG},
        {"type": "image_url", "image_url": uri},
        {"type": "image_url", "image_url": {"url": uri, "detail": "high"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": uri.partition(",")[2]}},
        {"type": "image", "source": {"type": "url", "url": uri}},
        {"type": "image", "source_type": "base64", "data": uri.partition(",")[2], "mime_type": "image/png"},
        {"type": "image", "source_type": "url", "url": uri},
        {"type": "image", "base64": uri},
        {"type": "input_image", "image_url": uri},
    ]
    for part in parts:
        np.testing.assert_array_equal(np.asarray(read_image(find_source(part, PICTURE))), PIXELS)
    for part in ({"type": "image"}, {"type": "image", "path": "a.png", "url": uri}):
        with pytest.raises(ValueError, match="exactly one of image, image_url"):
            find_source(part, PICTURE)
    for part in ({"type": "image", "file_id": "f"}, {"type": "image", "source": {"type": "file", "file_id": "f"}}):
        with pytest.raises(ValueError, match="is a file_id, which names a file that only another provider has"):
            find_source(part, PICTURE)


def test_what_is_given_as_base64_is_never_a_path_or_url(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(PNG)
    for part in ({"base64": str(file)}, {"data": "http://10.0.0.1/"}, {"source": {"data": file.as_uri()}}):
        with pytest.raises(ValueError, match="the text is no base64"):
            read_image(find_source({"type": "image", **part}, PICTURE))


def test_messages_keep_pictures_in_their_places() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "image", "image": PNG}, "b", {"type": "image", "image": PNG}]
    (message,) = check_messages([{"role": "user", "content": content}], vision=True)
    assert [part if isinstance(part, str) else part.size for part in message["content"]] == ["a", (8, 5), "b", (8, 5)]
    official = [Image.fromarray(PIXELS), PIXELS, PNG, "b"]
    (message,) = check_messages([{"role": "user", "content": official}], vision=True)
    assert [part if isinstance(part, str) else part.size for part in message["content"]] == [(8, 5)] * 3 + ["b"]
    (message,) = check_messages([{"role": "user", "content": ["a", {"type": "text", "text": "b"}]}], vision=True)
    assert message["content"] == "a\nb"


def test_the_number_of_pictures_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_PICTURES", 3)
    asked = [{"role": "user", "content": [PNG, PNG]}, {"role": "user", "content": [PNG]}]
    assert len(check_messages(asked, vision=True)) == 2
    with pytest.raises(ValueError, match="more than 3 pictures, the limit of one prompt"):
        check_messages([*asked, {"role": "tool", "content": [b"not even looked at"]}], vision=True)


@pytest.mark.parametrize("kind", ["image", "image_url", "video", "file"])
def test_a_text_model_refuses_pictures_unread(kind: str) -> None:
    asked = [{"role": "user", "content": [{"type": kind, kind: "no such file.png"}]}]
    with pytest.raises(ValueError, match=f"part of type '{kind}', but this model reads text only"):
        check_messages(asked, vision=False)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_are_pictures(channels: int) -> None:
    values = np.full((3, 4, channels), 255, np.uint8)
    values[1, 2, :3] = 10
    array = values[:, :, 0] if channels == 1 else values
    image = read_image(find_source({"type": "image", "image": array}, PICTURE))
    assert (image.size, image.mode) == ((4, 3), "RGB")
    assert (image.getpixel((2, 1)), image.getpixel((0, 0))) == ((10, 10, 10), (255, 255, 255))


@pytest.mark.parametrize("array", [np.zeros((2, 2, 7), np.uint8), np.zeros((2, 2, 3)), np.zeros(5, np.uint8)])
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="is no picture; accepted: uint8"):
        read_image(array)
