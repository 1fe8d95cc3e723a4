"""Target: films of strangers, which FFmpeg takes apart and decodes."""
# ruff: noqa: E501

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.mutation import mutated
from tests.fuzzing.target import CORPUS, Target, attempt

_MOST = 4
_FILM = [
    b"ftyp", b"isom", b"moov", b"mdat", b"moof", b"traf", b"trun", b"trak", b"tkhd", b"mdhd", b"edts", b"elst", b"stts", b"ctts",
    b"stsc", b"stsz", b"stco", b"co64", b"stss", b"stsd", b"mp4v", b"avc1", b"avcC", b"hvc1", b"rawv", b"jpeg", b"png ", b"free",
    b"udta", b"meta", b"dref", b"url ", b"file:///etc/passwd", b"http://127.0.0.1:9/", b"#EXTM3U\n", b"\0\0\0\1gmhd", b"\x1aE\xdf\xa3",
    b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xa3", b"\xe7", b"\xec", b"\x2a\xd7\xb1", b"V_VP9", b"V_MPEG4/ISO/AVC", b"V_MJPEG",
    b"V_UNCOMPRESSED", b"RIFF", b"AVI ", b"LIST", b"hdrl", b"strh", b"strf", b"movi", b"00dc", b"idx1", b"MJPG", b"cvid", b"FLV\1\5",
    b"\x12\0", b"\x47\x40\0\x10", b"\0\0\1\xb3", b"\0\0\1\xb6", b"\0\0\1\xe0", b"\0\0\1\x67", b"\0\0\1\x65", b"OggS", b"\x80theora",
    b"GIF89a", b"\x21\xf9\x04", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\xff\xff\xff\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xfe\xfd",
]  # fmt: skip


def _seeds() -> list[bytes]:
    return [file.read_bytes() for file in sorted((CORPUS / "films").glob("seed-*"))]


def _check_film(data: Any) -> Counter[str]:
    from minicpm_core.picture_settings import PictureSettings
    from minicpm_core.vision.film import MAX_FRAME_PIXELS
    from minicpm_core.vision.video import read_video

    seen: Counter[str] = Counter()
    for more, stack in (({"fps": 1000}, 1), ({}, 3), ({"times": [0, 0.25, 9e5]}, 1)):
        settings = PictureSettings(max_num_frames=_MOST, stack_frames=stack)
        part = {"type": "video", "video": data, **more}
        film = attempt(lambda part=part, settings=settings: read_video(part, settings), seen)
        if film is not None:
            assert 1 <= len(film.frames) == len(film.times) <= _MOST * min(stack, 2)
            assert all(frame.mode == "RGB" for frame in film.frames)
            assert all(frame.width * frame.height <= 2 * MAX_FRAME_PIXELS for frame in film.frames)
    return seen


FILMS = Target("films", st.deferred(lambda: mutated(_seeds(), _FILM)), _check_film)
