"""PDF pages and films as parts of a message."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minicpm_core import PictureSettings, pdfium
from minicpm_core.attachments import read_attachment
from minicpm_core.messages import check_messages
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
