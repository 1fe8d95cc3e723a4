"""Frames of a film's file, decoded by PyAV."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.images import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

CONTAINERS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf", "gif")
"""FFmpeg's names of the formats that are read; playlists, which name other files and URLs, are none of them."""
MAX_FRAME_PIXELS = 1_000_000
"""Larger frames are made smaller; a model sees a frame as one view of 200,000 pixels or so."""
_DECODER_OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "none"}
Frames = tuple[tuple["Image", ...], tuple[float, ...]]


def decode_frames(source: Path | bytes, name: str, *, times: Sequence[float] | float, most: int) -> Frames:
    """Return upright RGB frames and the seconds at which they are shown.

    Args:
        source: the file, or its content.
        name: of the film, for messages.
        times: seconds to look at; or frames per second, from the beginning to the end.
        most: if there are more, so many are taken at equal distances.

    Raises:
        ValueError: no film, a damaged one, or too large a picture.
        ImportError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            'films need PyAV: pip install "minicpm-integrations[video]"; or give a list of frames'
        ) from error
    stream: Any = source.open("rb") if isinstance(source, Path) else io.BytesIO(source)
    with stream:  # an open file and no path, so that FFmpeg's own protocols have nothing to open
        try:
            with av.open(stream, options=_DECODER_OPTIONS) as film:
                found = [] if not film.streams.video else _sample(film, name, times, most)
        except (av.error.FFmpegError, OSError) as error:
            formats = ", ".join(CONTAINERS)
            raise ValueError(f"the video {name} cannot be decoded ({error}); accepted formats: {formats}") from error
    if not found:
        raise ValueError(f"the video {name} has no pictures; is it sound only?")
    return tuple(image for image, _ in found), tuple(time for _, time in found)


def _sample(film: Any, name: str, times: Sequence[float] | float, most: int) -> list[tuple[Image, float]]:
    track = film.streams.video[0]
    track.thread_type = "AUTO"
    size = track.codec_context.width, track.codec_context.height
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"the video {name} has {size[0]} x {size[1]} pixels; the limit is {MAX_PIXELS:,}")
    packets = [(packet.pts, packet.is_keyframe) for packet in film.demux(track) if packet.pts is not None]
    if not packets:
        return []
    shown = sorted(pts for pts, _ in packets)
    unit, first = float(track.time_base), shown[0]
    if isinstance(times, (int, float)):
        length = (shown[-1] - first) * unit
        times = [n / times for n in range(int(length * times + 1e-6) + 1)]
    places = [first + round(time / unit) for time in times]
    if len(places) > most:
        places = [places[round(n * (len(places) - 1) / max(most - 1, 1))] for n in range(most)]
    # The frame that is on the screen at a time is the last one that has begun.
    wanted = [shown[max(bisect_right(shown, place) - 1, 0)] for place in sorted(places)]
    keys = sorted(pts for pts, is_key in packets if is_key)
    images = dict(_decode(film, track, sorted(set(wanted)), keys))
    return [(images[pts], (pts - first) * unit) for pts in wanted if pts in images]


def _decode(film: Any, track: Any, wanted: Sequence[int], keys: Sequence[int]) -> Iterator[tuple[int, Image]]:
    """Yield the wanted frames by their times, jumping to a key frame where one lies between them."""
    position: int | None = None
    frames: Iterator[Any] = iter(())
    for pts in wanted:
        key = keys[bisect_right(keys, pts) - 1] if keys and keys[0] <= pts else None
        if position is None or (key is not None and key > position):
            film.seek(pts, stream=track)
            frames = film.decode(track)
        for frame in frames:
            position = frame.pts
            if position is not None and position >= pts:
                yield pts, _to_image(frame)
                break


def _to_image(frame: Any) -> Image:
    from PIL.Image import Resampling

    image: Image = frame.to_image()
    if turned := getattr(frame, "rotation", 0):
        image = image.rotate(turned, expand=True)
    if (pixels := image.width * image.height) > MAX_FRAME_PIXELS:
        scale = (MAX_FRAME_PIXELS / pixels) ** 0.5
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, resample=Resampling.BICUBIC)
    return image.convert("RGB")
