"""Frames of a film's file, decoded by PyAV."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.images import MAX_PIXELS
from minicpm_core.vision.resizing import resize

if TYPE_CHECKING:
    from PIL.Image import Image

CONTAINERS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "asf", "gif")
"""FFmpeg's names of the formats that are read; playlists, which name other files and URLs, are none of them."""
MAX_FRAME_PIXELS = 1_000_000
"""Larger frames are made smaller; a model sees a frame as one view of 200,000 pixels or so."""
_LINE = 6
"""Pixels between frames that stand side by side."""
_DECODER_OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "none"}
Frames = tuple[tuple["Image", ...], tuple[float, ...]]


def decode_frames(
    source: Path | bytes, name: str, *, times: Sequence[float] | float, most: int, stack: int = 1
) -> Frames:
    """Return upright RGB frames and the seconds at which they are shown.

    Args:
        source: the file, or its content.
        name: of the film, for messages.
        times: seconds to look at; or frames per second, from the beginning to the end.
        most: if there are more, so many are taken at equal distances.
        stack: behind each frame stands a picture of `stack - 1` more, which divide the time until the next frame.

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
            with av.open(stream, options=_DECODER_OPTIONS, **_lenient(av.__version__)) as film:
                found = [] if not film.streams.video else _sample(film, name, times, most, stack)
        except (av.error.FFmpegError, OSError) as error:
            formats = ", ".join(CONTAINERS)
            raise ValueError(f"the video {name} cannot be decoded ({error}); accepted formats: {formats}") from error
    if not found:
        raise ValueError(f"the video {name} has no pictures; is it sound only?")
    return tuple(image for image, _ in found), tuple(time for _, time in found)


def _lenient(version: str) -> dict[str, str]:
    """Return the argument of `av.open` that lets titles be no UTF-8; from PyAV 19 on they always may."""
    return {"metadata_errors": "replace"} if int(version.partition(".")[0]) < 19 else {}


def _sample(film: Any, name: str, times: Sequence[float] | float, most: int, stack: int) -> list[tuple[Image, float]]:
    track = film.streams.video[0]
    if track.codec_context is None:
        raise ValueError(f"the video {name} is in a format that FFmpeg has no decoder for")
    track.thread_type = "AUTO"
    track.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # of the frames, which may be others than told before
    size = track.codec_context.width, track.codec_context.height
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"the video {name} has {size[0]} x {size[1]} pixels; the limit is {MAX_PIXELS:,}")
    packets = [(packet.pts, packet.is_keyframe) for packet in film.demux(track) if packet.pts is not None]
    if not packets:
        return []
    shown = sorted(pts for pts, _ in packets)
    unit, first = float(track.time_base), shown[0]
    step = 1 / times if isinstance(times, (int, float)) else 1.0
    if isinstance(times, (int, float)):
        rate, last = times, int((shown[-1] - first) * unit * times + 1e-6)
        times = [n / rate for n in _choose(last + 1, most)]  # a damaged film may claim to last for centuries
    else:
        times = [times[n] for n in _choose(len(times), most)]
    ends = (shown[-1] - first) * unit * len(shown) / max(len(shown) - 1, 1)  # of the last frame
    groups = _divide(sorted(times), step, stack, ends)
    # The frame that is on the screen at a time is the last one that has begun.
    wanted = [[shown[max(bisect_right(shown, first + round(t / unit)) - 1, 0)] for t in group] for group in groups]
    keys = sorted(pts for pts, is_key in packets if is_key)
    alone = {group[0] for group in wanted}
    images = {}
    for pts, image in _decode(film, track, sorted({pts for group in wanted for pts in group}), keys):
        images[pts] = image if pts in alone else _shrink(image, MAX_FRAME_PIXELS // (stack - 1))
    frames: list[tuple[Image, float]] = []
    for group in wanted:
        found = [(images[pts], (pts - first) * unit) for pts in group if pts in images]
        frames += found[:1]
        if more := found[1:]:
            frames.append((join_frames([image for image, _ in more]), more[0][1]))
    return frames


def _choose(count: int, most: int) -> list[int]:
    """Return the numbers below `count`, or `most` of them at equal distances, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(n * (count - 1) / max(most - 1, 1)) for n in range(most)]


def _divide(times: Sequence[float], step: float, stack: int, ends: float) -> list[list[float]]:
    """Return each time with `stack - 1` more that divide what lies between it and the next one, or the film's end."""
    gaps = [later - earlier for earlier, later in pairwise(times)] or [step]
    return [
        [time, *(part for n in range(1, stack) if (part := time + gap * n / stack) < ends)]
        for time, gap in zip(times, [*gaps[: len(times) - 1], gaps[-1]], strict=True)
    ]


def join_frames(frames: Sequence[Image]) -> Image:
    """Return frames of one time side by side on black, in the order of reading, as MiniCPM-V 4.6 was shown them.

    Four stand two by two; two or three in the row or column that is nearer to a square; more in a row.
    """
    from PIL import Image

    width, height = min((frame.size for frame in frames), key=lambda size: size[0] * size[1])
    count = len(frames)
    rows = 2 if count == 4 else 1
    if count in (2, 3):
        across, down = _ratio(count, 1, width, height), _ratio(1, count, width, height)
        wide = width >= height if count == 2 else True
        rows = 1 if across < down or (across == down and wide) else count
    columns = count // rows
    canvas = Image.new("RGB", (columns * (width + _LINE) - _LINE, rows * (height + _LINE) - _LINE))
    for n, frame in enumerate(frames):
        shown = frame if frame.size == (width, height) else resize(frame, (width, height))
        canvas.paste(shown, (n % columns * (width + _LINE), n // columns * (height + _LINE)))
    return canvas


def _ratio(columns: int, rows: int, width: int, height: int) -> float:
    """Return how far frames side by side are from a square."""
    return abs((columns * (width + _LINE) - _LINE) / (rows * (height + _LINE) - _LINE) - 1)


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
    image: Image = frame.to_image()
    if turned := getattr(frame, "rotation", 0):
        image = image.rotate(turned, expand=True)
    return _shrink(image, MAX_FRAME_PIXELS).convert("RGB")


def _shrink(image: Image, most: int) -> Image:
    if (pixels := image.width * image.height) <= most:
        return image
    scale = (most / pixels) ** 0.5
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return resize(image, size)
