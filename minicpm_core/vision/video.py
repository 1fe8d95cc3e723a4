"""Videos as lists of frames with their times."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.images import read_image
from minicpm_core.media import Encoded, Kind, find_source, read_bytes
from minicpm_core.picture_settings import MAX_FRAMES, PictureSettings
from minicpm_core.vision.film import decode_frames

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILM_BYTES = 512 * 2**20
"""Of a film that is downloaded or given as bytes; a file on the disk is not read as a whole."""
FILM = Kind(
    "video", ("video", "video_url"), "video/", "a file's path, an http(s) URL, bytes, a data URI, or a list of frames"
)
_USUAL_FRAMES = 64
MAX_TOGETHER = 6
"""MiniCPM-V 4.5 was trained with at most six frames in one set of tokens."""
TICKS = 10
"""Temporal ids per second."""


@dataclass(frozen=True, eq=False)
class Video:
    """Upright RGB frames, the second each was taken at, and how many are read together as one set of tokens."""

    frames: tuple[Image, ...]
    times: tuple[float, ...]
    together: int

    def groups(self) -> list[tuple[tuple[Image, ...], tuple[int, ...]]]:
        """Return the frames that are read together, with their temporal ids."""
        starts = range(0, len(self.frames), self.together)
        ids = tuple(round(time * TICKS) for time in self.times)
        return [(self.frames[start : start + self.together], ids[start : start + self.together]) for start in starts]


def read_video(part: Mapping[str, Any], settings: PictureSettings | None = None) -> Video:
    """Return the video of a message part such as {"type": "video", "video": "film.mp4"}.

    Args:
        part: a film's file in any form of `media`, of which one frame per second is taken, or "fps" of them (with
            `stack_frames` more of each), or those at "times" in seconds; or under "video" a list of pictures in any
            form, of which "fps" (1) or "times" tell when they were taken. "together" (1) frames become one set of
            tokens (MiniCPM-V 4.5).
        settings: which frames of a file are taken, and whether URLs may lead to private addresses.

    Raises:
        ValueError: no video, or numbers that do not belong to it.
        ImportError: a film's file, and PyAV is not installed.
    """
    settings = settings or PictureSettings()
    together = part.get("together", 1)
    if not isinstance(together, int) or not 1 <= together <= MAX_TOGETHER:
        raise ValueError(f"together is {together!r}; accepted: 1 to {MAX_TOGETHER} frames")
    sources = part.get("video")
    if isinstance(sources, (list, tuple)):
        if not 1 <= len(sources) <= MAX_FRAMES:
            raise ValueError(f"a video part holds {len(sources)} frames; accepted: 1 to {MAX_FRAMES} pictures")
        times = _read_times(part, len(sources)) or tuple(place / _read_fps(part) for place in range(len(sources)))
        return Video(tuple(read_image(source, settings) for source in sources), times, together)
    source = find_source(part, FILM)
    if isinstance(source, str) and not isinstance(source, Encoded) and "://" not in source and os.path.isfile(source):
        source = Path(source)
    told = _read_times(part, None)
    if isinstance(source, Path) and not source.expanduser().is_file():
        raise FileNotFoundError(f"no video file {source}; accepted: {FILM.accepted}")
    film: Path | bytes
    if isinstance(source, Path):
        film, name = source.expanduser(), str(source)
    else:
        film, name = read_bytes(source, FILM, MAX_FILM_BYTES, settings)
    most, stack = settings.max_num_frames or _USUAL_FRAMES, settings.stack_frames or 1
    frames, seen = decode_frames(film, name, times=told or _read_fps(part), most=most, stack=1 if told else stack)
    return Video(frames, seen, together)


def _read_fps(part: Mapping[str, Any]) -> float:
    fps = part.get("fps")
    if fps is None:
        return 1.0
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps!r}; a number above 0 is needed")
    return float(fps)


def _read_times(part: Mapping[str, Any], count: int | None) -> tuple[float, ...] | None:
    """Return the seconds that a part tells, for so many frames; None where it tells none."""
    times: Any = part.get("times")
    if times is None:
        return None
    numbers = isinstance(times, (list, tuple)) and all(isinstance(t, (int, float)) and 0 <= t < 1e6 for t in times)
    if (
        part.get("fps") is not None
        or not numbers
        or not 1 <= len(times) <= MAX_FRAMES
        or count not in (None, len(times))
    ):
        frames = "each frame" if count is None else f"each of {count} frames"
        raise ValueError(f"times must hold one second for {frames}, and no fps beside them: {times!r}")
    return tuple(float(time) for time in times)
