"""PDF pages and films as parts of a message."""

from __future__ import annotations

import ast
import base64
import io
import math
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minicpm_core import PictureSettings, pdfium
from minicpm_core.attachments import read_attachment
from minicpm_core.messages import check_messages
from minicpm_core.vision.film import join_frames
from minicpm_core.vision.video import read_video

av = pytest.importorskip("av", reason="PyAV is not installed")
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


def write_pdf(*colours: tuple[int, int, int], size: tuple[int, int] = (200, 100)) -> bytes:
    stream = io.BytesIO()
    pages = [Image.new("RGB", size, colour) for colour in colours]
    pages[0].save(stream, "PDF", save_all=True, append_images=pages[1:], resolution=72)
    return stream.getvalue()


PDF = write_pdf(*COLOURS)


def near(image: Image.Image, colour: tuple[int, ...]) -> bool:
    pixel = image.getpixel((image.width // 2, image.height // 2))
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) < 40


def read(part: dict[str, Any], most: int = 9) -> list[Image.Image]:
    return read_attachment(part, PictureSettings(), most)


def test_every_form_of_a_pdf_gives_its_pages(tmp_path: Path) -> None:
    file = tmp_path / "scan.pdf"
    file.write_bytes(PDF)
    text = base64.b64encode(PDF).decode()
    uri = f"data:application/pdf;base64,{text}"
    parts: list[dict[str, Any]] = [
        {"file": file},
        {"file": str(file)},
        {"path": str(file)},
        {"url": file.as_uri()},
        {"data": PDF},
        {"base64": text, "mime_type": "application/pdf"},
        {"file": {"filename": "scan.pdf", "file_data": uri}},
        {"source": {"type": "base64", "media_type": "application/pdf", "data": text}},
    ]
    for part in parts:
        pages = read({"type": "file", **part})
        assert [page.size for page in pages] == [(400, 200)] * 3, "144 dots per inch"
        assert all(near(page, colour) for page, colour in zip(pages, COLOURS, strict=True))


def test_some_pages() -> None:
    pages = read({"type": "file", "data": PDF, "pages": [3, 1]})
    assert [near(page, colour) for page, colour in zip(pages, (COLOURS[2], COLOURS[0]), strict=True)] == [True, True]


def test_large_pages_have_fewer_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdfium, "MAX_PAGE_PIXELS", 5000)
    (page,) = read({"type": "file", "data": write_pdf(COLOURS[0])})
    assert page.size == (100, 50)


def test_a_picture_may_come_as_a_file() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (5, 4), COLOURS[1]).save(stream, "PNG")
    (image,) = read({"type": "file", "base64": base64.b64encode(stream.getvalue()).decode(), "mime_type": "image/png"})
    assert image.size == (5, 4)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"data": PDF, "pages": [4]}, "the PDF the bytes has no page 4; its pages are 1 to 3"),
        ({"data": PDF, "pages": [0]}, "no page 0"),
        ({"data": PDF, "pages": "1-2"}, "pages is '1-2'; accepted: a list of page numbers"),
        ({"data": PDF, "pages": range(1, 4)}, "has 3 pages to show, and 2 are left"),
        ({"data": b"%PDF-1.4 and no more"}, "is damaged or not a PDF"),
        ({"data": b"PK\x03\x04", "mime_type": "application/zip"}, r"the file the bytes \(application/zip\) is no PDF"),
        ({"file": "no such.pdf"}, "no file file 'no such.pdf'"),
        ({"file": {"file_id": "file-1"}}, "is a file_id"),
        ({}, "a file part needs exactly one of file, document, pdf, url"),
    ],
)
def test_what_is_no_pdf_says_why(part: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        read({"type": "file", **part}, most=2 if part.get("pages") == range(1, 4) else 9)


def test_pages_are_pictures_of_the_message() -> None:
    content = ["a", {"type": "file", "data": PDF, "pages": [1, 2]}, "b"]
    (message,) = check_messages([{"role": "user", "content": content}], vision=True)
    assert [part if isinstance(part, str) else part.size for part in message["content"]] == [
        "a",
        (400, 200),
        (400, 200),
        "b",
    ]


def write_film(path: Path, *, seconds: int = 6, rate: int = 10, codec: str = "mpeg4", keys: int = 12) -> Path:
    """Write a film whose frames are brighter from second to second."""
    with av.open(str(path), "w") as film:
        track = film.add_stream(codec, rate=rate)
        track.width, track.height, track.pix_fmt, track.gop_size = 64, 48, "yuv420p", keys
        for n in range(seconds * rate):
            grey = np.full((48, 64, 3), 20 + 30 * (n // rate), np.uint8)
            for packet in track.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                film.mux(packet)
        for packet in track.encode():
            film.mux(packet)
    return path


def second(image: Image.Image) -> int:
    pixel = image.getpixel((30, 20))
    assert isinstance(pixel, tuple)
    return round((pixel[0] - 20) / 30)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi", "film.mov"])
def test_one_frame_of_each_second_is_taken(name: str, tmp_path: Path) -> None:
    video = read_video({"type": "video", "video": write_film(tmp_path / name)})
    assert [round(time, 1) for time in video.times] == [0, 1, 2, 3, 4, 5]
    assert [second(frame) for frame in video.frames] == [0, 1, 2, 3, 4, 5]
    assert {frame.size for frame in video.frames} == {(64, 48)}


@pytest.mark.parametrize(("keys", "fps"), [(1, 1), (5, 2), (100, 2), (100, 0.5)])
def test_frames_are_right_wherever_the_key_frames_are(keys: int, fps: float, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", keys=keys)
    video = read_video({"type": "video", "video": film, "fps": fps})
    assert len(video.frames) == (6 if fps == 1 else 12 if fps == 2 else 3)
    assert [second(frame) for frame in video.frames] == [int(time + 1e-6) for time in video.times]


def test_long_films_give_frames_at_equal_distances(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", seconds=6)
    video = read_video({"type": "video", "video": film, "fps": 5}, PictureSettings(max_num_frames=4))
    assert [round(time, 1) for time in video.times] == [0.0, 2.0, 3.8, 5.8]
    (only,) = read_video({"type": "video", "video": film}, PictureSettings(max_num_frames=1)).times
    assert only == 0


def official(name: str) -> Any:
    """Return a method of transformers' video processor; its module itself cannot be imported without torchvision."""
    import torch
    import transformers

    file = Path(transformers.__file__).parent / "models" / "minicpmv4_6" / "video_processing_minicpmv4_6.py"
    (found,) = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef) and n.name == name]
    found.decorator_list, found.returns = [], None
    for argument in found.args.args:
        argument.annotation = None
    scope: dict[str, Any] = {"np": np, "math": math, "torch": torch}
    exec(compile(ast.Module([found], []), str(file), "exec"), scope)
    return partial(scope[name], None)


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (64, 64), (300, 40), (40, 300)])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_frames_side_by_side_are_those_of_transformers(size: tuple[int, int], count: int) -> None:
    import torch

    pixels = np.random.default_rng(0).integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)
    joined = join_frames([Image.fromarray(one) for one in pixels])
    expected = official("concat_frames_as_image")(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert np.array_equal(np.asarray(joined), expected[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("fps", [1, 1000])
def test_a_film_may_claim_to_last_for_a_century(fps: int) -> None:
    stream, seconds = io.BytesIO(), (0, 1, 3_000_000_000)
    with av.open(stream, "w", format="matroska") as writer:
        track = writer.add_stream("mjpeg", rate=1)
        track.width, track.height, track.pix_fmt = 64, 48, "yuvj420p"
        for n, shown in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 30 * n, np.uint8), format="rgb24")
            frame.pts, frame.time_base = shown, Fraction(1)
            writer.mux(track.encode(frame))
        writer.mux(track.encode())
    part = {"type": "video", "video": stream.getvalue(), "fps": fps}
    video = read_video(part, PictureSettings(max_num_frames=4))
    assert video.times == (0, 1, 1, 3_000_000_000)
    assert [second(frame) for frame in video.frames] == [0, 1, 1, 2]


@pytest.mark.parametrize("stack", [2, 3, 5])
@pytest.mark.parametrize("frames", [30, 27, 31, 9])
def test_stacked_frames_are_those_of_transformers(stack: int, frames: int, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as writer:
        track = writer.add_stream("mpeg4", rate=10)
        track.width, track.height, track.pix_fmt, track.gop_size = 64, 48, "yuv420p", 1
        for n in range(frames):
            grey = np.full((48, 64, 3), 20 + 7 * n, np.uint8)
            for packet in track.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                writer.mux(packet)
        for packet in track.encode():
            writer.mux(packet)
    video = read_video({"type": "video", "video": film}, PictureSettings(stack_frames=stack))
    about = SimpleNamespace(duration=frames / 10, fps=10, total_num_frames=frames)
    chosen = official("sample_frames")(about, max_num_frames=128, stack_frames=stack)
    seconds = math.ceil(frames / 10)
    expected = []  # of each second the first frame, then those of the others that lie in it
    for n in range(seconds):
        expected += [[chosen[n]], [i for i in chosen[seconds:] if i // 10 == n]]

    def number(image: Image.Image, column: int, row: int) -> int:
        pixel = image.getpixel((column * 70 + 30, row * 54 + 20))
        assert isinstance(pixel, tuple)
        return round((pixel[0] - 20) / 7)

    found = []
    for image in video.frames:
        columns, rows = (image.width + 6) // 70, (image.height + 6) // 54
        found.append([number(image, column, row) for row in range(rows) for column in range(columns)])
    assert found == [group for group in expected if group]


def test_a_long_film_is_stacked_between_the_frames_that_are_taken(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", seconds=6)
    settings = PictureSettings(max_num_frames=2, stack_frames=3)
    first, between, last = read_video({"type": "video", "video": film}, settings).frames
    assert [second(frame) for frame in (first, last)] == [0, 5], "and the film ends before the next"
    assert between.size == (64, 2 * 48 + 6)
    assert [second(between.crop((0, top, 64, top + 48))) for top in (0, 54)] == [1, 3]  # at 5 / 3 and 10 / 3


def test_what_was_chosen_one_by_one_is_not_stacked(tmp_path: Path) -> None:
    film, settings = write_film(tmp_path / "film.mp4", seconds=2), PictureSettings(stack_frames=3)
    assert len(read_video({"type": "video", "video": film, "times": [0, 1]}, settings).frames) == 2
    assert len(read_video({"type": "video", "video": [Image.new("RGB", (9, 9))] * 2}, settings).frames) == 2


def test_times_can_be_told(tmp_path: Path) -> None:
    video = read_video({"type": "video", "video": write_film(tmp_path / "film.mp4"), "times": [4.55, 0.5, 99]})
    assert [second(frame) for frame in video.frames] == [0, 4, 5]
    assert [round(time, 1) for time in video.times] == [0.5, 4.5, 5.9]


def test_every_form_of_a_film(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", seconds=2)
    data = film.read_bytes()
    text = base64.b64encode(data).decode()
    parts: list[dict[str, Any]] = [
        {"video": str(film)},
        {"video": data},
        {"path": str(film)},
        {"url": film.as_uri()},
        {"base64": text, "mime_type": "video/mp4"},
        {"video_url": {"url": f"data:video/mp4;base64,{text}"}},
    ]
    for part in parts:
        assert [second(frame) for frame in read_video({"type": "video", **part}).frames] == [0, 1]


def test_large_frames_are_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minicpm_core.vision import film

    path = write_film(tmp_path / "film.mp4", seconds=1)
    monkeypatch.setattr(film, "MAX_FRAME_PIXELS", 768)
    assert read_video({"type": "video", "video": path}).frames[0].size == (32, 24)
    monkeypatch.setattr(film, "MAX_PIXELS", 3000)
    with pytest.raises(ValueError, match="has 64 x 48 pixels; the limit is 3,000"):
        read_video({"type": "video", "video": path})


def test_a_playlist_reads_no_other_file(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.ts", codec="mpeg2video", rate=25)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{film}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{film}'\n"
    assert len(read_video({"type": "video", "video": film}).frames) >= 5, "the file itself is a film"
    with pytest.raises(ValueError, match="cannot be decoded"):  # a format of FFmpeg's that is none of ours
        read_video({"type": "video", "video": write_film(tmp_path / "film.nut")})
    for text in (playlist, concat):
        (tmp_path / "list.mp4").write_text(text)
        for source in (text.encode(), tmp_path / "list.mp4"):
            with pytest.raises(ValueError, match="cannot be decoded"):
                read_video({"type": "video", "video": source})


@pytest.mark.parametrize(
    ("part", "error", "says"),
    [
        ({"video": "no such film.mp4"}, FileNotFoundError, "no video file 'no such film.mp4'; accepted: a file's path"),
        ({"video": Path("no such film.mp4")}, FileNotFoundError, "no video file no such film.mp4"),
        ({"video": b"no film"}, ValueError, "the video the bytes cannot be decoded"),
        ({"video": b"no film", "fps": 0}, ValueError, "fps is 0"),
        ({"video": b"no film", "times": 3}, ValueError, "one second for each frame"),
    ],
)
def test_what_is_no_film_says_why(part: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read_video({"type": "video", **part})


def test_a_film_with_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as film:
        track = film.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*track.encode(frame), *track.encode()]:
            film.mux(packet)
    with pytest.raises(ValueError, match="has no pictures; is it sound only"):
        read_video({"type": "video", "video": path})
