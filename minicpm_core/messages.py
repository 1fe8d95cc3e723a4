"""The neutral chat format: the chat template's own dicts, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minicpm_core.attachments import read_attachment
from minicpm_core.control_tokens import refuse_half_characters
from minicpm_core.images import PICTURE, is_picture, read_image
from minicpm_core.media import find_source
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.types import Message
from minicpm_core.vision.video import Video, read_video

ROLES = ("system", "user", "assistant", "tool")
IMAGES = ("image", "image_url", "input_image")
VIDEOS = ("video", "video_url")
FILES = ("file", "document", "input_file")
MAX_PICTURES = 256
"""Pictures and pages of one prompt; the frames of a video are limited on their own."""


def check_messages(
    messages: Sequence[Mapping[str, Any]], *, vision: bool, settings: PictureSettings | None = None
) -> list[Message]:
    """Return the messages with text parts joined; refuse unknown roles and parts that the model cannot take.

    A content with pictures stays a list: of texts and, in their places, upright RGB images and `Video`s.

    Args:
        messages: dicts with "role" and "content"; content is a string, or a list of strings, pictures (PIL images,
            arrays, paths, bytes) and parts: {"type": "text", "text": ...}, {"type": "image", "image": ...} (see
            `images`), {"type": "video", "video": ...} (see `vision.video`), {"type": "file", "file": ...} (a PDF,
            whose pages are shown; see `attachments`). None stands for no text.
        vision: whether the model takes pictures.
        settings: how pictures are read.
    """
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError(
            f"messages are a list of dicts such as {{'role': 'user', 'content': 'Hello'}}; given {messages!r:.200}"
        )
    if not messages:
        raise ValueError("there are no messages; give at least one, such as {'role': 'user', 'content': 'Hello'}")
    parts = _Parts(vision, settings or PictureSettings())
    for message in messages:
        _check_calls(message.get("tool_calls"))
        refuse_half_characters(message)
    return [{**message, "role": _role(message), "content": parts.read(message)} for message in messages]


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"message role {role!r} is unknown; accepted: {', '.join(ROLES)}")
    return str(role)


def _check_calls(calls: Any) -> None:
    for call in calls if isinstance(calls, (list, tuple)) else [None] if calls else ():
        function = (call.get("function") or call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            form = '[{"id": ..., "type": "function", "function": {"name": ..., "arguments": {...}}}]'
            raise ValueError(f"tool_calls of a message are {calls!r:.200}; accepted: {form}")


class _Parts:
    """Reads the contents of a prompt's messages, and counts the pictures in them."""

    def __init__(self, vision: bool, settings: PictureSettings) -> None:
        self._vision = vision
        self._settings = settings
        self._left = MAX_PICTURES

    def read(self, message: Mapping[str, Any]) -> Any:
        """Return a message's content: text, or a list of texts, images and videos."""
        content = message.get("content")
        if content is None or isinstance(content, str):
            return content or ""
        if not isinstance(content, (list, tuple)):
            raise ValueError(f"message content is a {type(content).__name__}; accepted: a string or a list of parts")
        parts = [read for part in content for read in self._read(part)]
        return "\n".join(parts) if all(isinstance(part, str) for part in parts) else parts

    def _read(self, part: Any) -> list[Any]:
        if isinstance(part, str):
            return [part]
        if is_picture(part):
            part = {"type": "image", "image": part}
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise ValueError(f"a message part of type 'text' has a text; given {dict(part)!r:.200}")
            return [part["text"]]
        if kind not in (*IMAGES, *VIDEOS, *FILES):
            accepted = ", ".join(("text", *IMAGES, *VIDEOS, *FILES)) if self._vision else "text"
            raise ValueError(f"message part of type {kind!r} is not supported; accepted: {accepted}")
        if not self._vision:
            raise ValueError(
                f"the messages hold a part of type {kind!r}, but this model reads text only; "
                "use a MiniCPM-V checkpoint such as openbmb/MiniCPM-V-4.6"
            )
        if kind in VIDEOS:
            video: Video = read_video(part, self._settings)
            return [video]
        if not self._left:
            raise ValueError(f"the messages hold more than {MAX_PICTURES} pictures, the limit of one prompt")
        if kind in FILES:
            pictures = read_attachment(part, self._settings, self._left)
        else:
            pictures = [read_image(find_source(part, PICTURE), self._settings)]
        self._left -= len(pictures)
        return pictures
