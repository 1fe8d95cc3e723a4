"""Videos as lists of frames with their times; files of films are not decoded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minicpm_core.images import read_image

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FRAMES = 256
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


def read_video(part: Mapping[str, Any]) -> Video:
    """Return the video of a message part such as {"type": "video", "video": [frame, ...], "fps": 2}.

    Args:
        part: "video" is a list of pictures in any form; "fps" (1 where it is missing) or "times" in seconds tell when
            they were taken; "together" (1) frames become one set of tokens (MiniCPM-V 4.5).

    Raises:
        ValueError: no list of frames, or numbers that do not belong to it.
    """
    sources = part.get("video")
    if not isinstance(sources, (list, tuple)) or not 1 <= len(sources) <= MAX_FRAMES:
        given = f"{len(sources)} frames" if isinstance(sources, (list, tuple)) else f"a {type(sources).__name__}"
        raise ValueError(f"a video part holds {given}; give its frames as a list of 1 to {MAX_FRAMES} pictures")
    together = part.get("together", 1)
    if not isinstance(together, int) or not 1 <= together <= MAX_TOGETHER:
        raise ValueError(f"together is {together!r}; accepted: 1 to {MAX_TOGETHER} frames")
    return Video(tuple(read_image(source) for source in sources), _times(part, len(sources)), together)


def _times(part: Mapping[str, Any], count: int) -> tuple[float, ...]:
    times: Sequence[Any] | None = part.get("times")
    if times is None:
        fps = part.get("fps", 1)
        if not isinstance(fps, (int, float)) or not 0 < fps <= 1000:
            raise ValueError(f"fps is {fps!r}; a number above 0 is needed")
        return tuple(place / fps for place in range(count))
    if "fps" in part or len(times) != count or not all(isinstance(t, (int, float)) and 0 <= t < 1e6 for t in times):
        raise ValueError(f"times must hold one second for each of {count} frames, and no fps beside them: {times!r}")
    return tuple(float(time) for time in times)
