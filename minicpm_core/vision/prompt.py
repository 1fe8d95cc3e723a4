"""Pictures in a prompt: marked in the messages, written as placeholder tokens, found again among the token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from minicpm_core.picture_settings import PictureSettings
from minicpm_core.types import Message
from minicpm_core.vision.video import Video

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Markers:
    """The texts of a checkpoint's placeholder tokens; `slot` stands once for each token of features."""

    slot: str = "<unk>"
    image: tuple[str, str] = ("<image>", "</image>")
    slice: tuple[str, str] = ("<slice>", "</slice>")
    number: tuple[str, str] = ("<image_id>", "</image_id>")

    def __post_init__(self) -> None:
        for text in self.texts:
            if not isinstance(text, str) or not 0 < len(text) <= 64:
                raise ValueError(
                    f"a placeholder token of the checkpoint is {text!r}; a text of 1 to 64 characters is needed"
                )

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them."""
        return (self.slot, *self.image, *self.slice, *self.number)

    @classmethod
    def read(cls, preprocessor: Mapping[str, Any]) -> Markers:
        """Return the texts that preprocessor_config.json names, the published ones where it is silent."""
        default = cls()

        def pair(key: str, known: tuple[str, str]) -> tuple[str, str]:
            return preprocessor.get(f"{key}_start", known[0]), preprocessor.get(f"{key}_end", known[1])

        return cls(
            preprocessor.get("unk", default.slot),
            pair("im", default.image),
            pair("slice", default.slice),
            pair("im_id", default.number),
        )

    def write(self, counts: Sequence[int], columns: int, *, number: int | None, nested: bool) -> str:
        """Return the placeholder text of one picture.

        Args:
            counts: feature tokens of the whole view, then of each tile, row by row.
            columns: tiles per row; anything where there are no tiles.
            number: the picture's place among the prompt's pictures, None where it is not told.
            nested: tiles are `image` parts inside one `slice` (2.0, 2.5), not `slice` parts themselves.
        """
        view, *tiles = counts
        text = "" if number is None else str(number).join(self.number)
        text += (self.slot * view).join(self.image)
        if not tiles:
            return text
        around = self.image if nested else self.slice
        cells = [(self.slot * tile).join(around) for tile in tiles]
        rows = "\n".join("".join(cells[start : start + columns]) for start in range(0, len(cells), columns))
        return text + (rows.join(self.slice) if nested else rows)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture made ready: its placeholder text, and the views (of the whole, then tiles) whose features go there."""

    text: str
    views: tuple[Any, ...]
    frames: tuple[int, ...] | None = None
    """Temporal ids of the views where they are frames that are read together."""
    mode: str | None = None
    """The `downsample_mode` of its features, where the family has it."""

    @cached_property
    def digest(self) -> bytes:
        """What tells its features from others': the pixels of its views as they were cut, their times, the mode."""
        digest = blake2b(digest_size=16)
        digest.update(repr((self.frames, self.mode, [view.shape for view in self.views])).encode())
        for view in self.views:
            digest.update(view.tobytes())
        return digest.digest()


class PictureReader(Protocol):
    """What a vision family's module gives the engine."""

    markers: Markers

    @property
    def defaults(self) -> PictureSettings:
        """The checkpoint's own settings; None is what it does not have."""
        ...

    def adapt(self, settings: PictureSettings) -> PictureReader:
        """Return a reader with these settings, none of which is None where `defaults` has one."""
        ...

    def read(self, image: Image, number: int) -> Picture:
        """Make the prompt's picture of that number ready."""
        ...

    def read_video(self, video: Video) -> list[Picture]:
        """Make a video's frames ready."""
        ...

    @property
    def between_frames(self) -> str:
        """What stands between the frames of a video."""
        ...


@dataclass(frozen=True, eq=False)
class Pictures:
    """All pictures of a prompt.

    Args:
        pictures: in the order of the prompt.
        spans: [start, end) of each run of feature slots: characters of the text, after `at_tokens` token ids.
    """

    pictures: tuple[Picture, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def views(self) -> tuple[Any, ...]:
        """The views of all pictures; as many as spans unless frames are read together."""
        return tuple(view for picture in self.pictures for view in picture.views)

    def describe(self) -> str:
        """Return how many tokens the pictures take and how they can be fewer, for messages about a long prompt."""
        tokens = sum(end - start for start, end in self.spans)
        return f" ({tokens} of them for pictures, fewer with a smaller max_slice_nums)"

    @property
    def mode(self) -> str | None:
        """The `downsample_mode`, which all pictures of a prompt share."""
        return self.pictures[0].mode if self.pictures else None

    @property
    def end(self) -> int:
        """Where the last slot ends."""
        return max((end for _, end in self.spans), default=0)

    def at_tokens(self, offsets: Sequence[tuple[int, int]], shift: int) -> Pictures:
        """Return the same with spans in token ids, from the tokenizer's character offsets.

        Args:
            offsets: [start, end) in characters per token.
            shift: token ids put in front afterwards (BOS).

        Raises:
            ValueError: the tokenizer does not keep a slot as one token.
        """
        found = []
        token = 0
        for start, end in self.spans:
            while token < len(offsets) and offsets[token][0] < start:
                token += 1
            first = token
            while token < len(offsets) and offsets[token][0] < end:
                token += 1
            found.append((first + shift, token + shift))
        return Pictures(self.pictures, tuple(found))


@dataclass(frozen=True)
class Marked:
    """Messages whose pictures have become marks, until a chat template has written them as one text."""

    messages: list[Message]
    pictures: tuple[Picture, ...]
    mark: str
    markers: Markers

    def insert_into(self, text: str) -> tuple[str, Pictures | None]:
        """Return the rendered text with placeholders for the marks, and where their slots are.

        Raises:
            ValueError: the chat template left pictures out, or wrote them twice.
        """
        if not self.pictures:
            return text, None
        pieces = text.split(self.mark)
        if len(pieces) != len(self.pictures) + 1:
            shown = f"{len(pieces) - 1} of {len(self.pictures)} pictures"
            raise ValueError(f"the chat template shows {shown}; put pictures into user messages")
        whole, spans = pieces[0], []
        run = re.compile(f"(?:{re.escape(self.markers.slot)})+")
        for picture, piece in zip(self.pictures, pieces[1:], strict=True):
            spans += [(match.start() + len(whole), match.end() + len(whole)) for match in run.finditer(picture.text)]
            whole += picture.text + piece
        return whole, Pictures(self.pictures, tuple(spans))


def take_pictures(messages: Sequence[Message], reader: PictureReader) -> Marked:
    """Return the messages with a mark, which no text can hold, in the place of each picture."""
    mark = f"\ue000{uuid4().hex}\ue001"
    pictures: list[Picture] = []
    numbers = count()

    def join(content: Any) -> Any:
        if not isinstance(content, list):
            return content
        texts = []
        for part in content:
            if isinstance(part, str):
                texts.append(part)
                continue
            if isinstance(part, Video):
                read = reader.read_video(part)
            else:
                read = [reader.read(part, next(numbers))]
            pictures.extend(read)
            texts.append(reader.between_frames.join([mark] * len(read)))
        return "\n".join(texts)

    marked = [{**message, "content": join(message["content"])} for message in messages]
    return Marked(marked, tuple(pictures), mark, reader.markers)
