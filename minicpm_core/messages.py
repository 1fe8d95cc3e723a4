"""The neutral chat format: the chat template's own dicts, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minicpm_core.images import find_source, read_image
from minicpm_core.types import Message
from minicpm_core.vision.video import read_video

ROLES = ("system", "user", "assistant", "tool")


def check_messages(messages: Sequence[Mapping[str, Any]], *, vision: bool) -> list[Message]:
    """Return the messages with text parts joined; refuse unknown roles and parts that the model cannot take.

    A content with pictures stays a list: of texts and, in their places, upright RGB images and `Video`s.

    Args:
        messages: dicts with "role" and "content"; content is a string or a list of {"type": "text", "text": ...} and
            parts such as {"type": "image", "image": ...} (see `images` and `vision.video`); None stands for no text.
        vision: whether the model takes pictures.
    """
    if not messages:
        raise ValueError("there are no messages; give at least one, such as {'role': 'user', 'content': 'Hello'}")
    return [{**message, "role": _role(message), "content": _content(message, vision)} for message in messages]


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"message role {role!r} is unknown; accepted: {', '.join(ROLES)}")
    return str(role)


def _content(message: Mapping[str, Any], vision: bool) -> Any:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        raise ValueError(f"message content is a {type(content).__name__}; accepted: a string or a list of parts")
    parts: list[Any] = []
    for part in content:
        kind = "text" if isinstance(part, str) else part.get("type")
        if kind == "text":
            parts.append(part if isinstance(part, str) else str(part["text"]))
        elif kind in ("image", "image_url", "video") and not vision:
            raise ValueError(
                f"the messages hold a part of type {kind!r}, but this model reads text only; "
                "use a MiniCPM-V checkpoint such as openbmb/MiniCPM-V-4.6"
            )
        elif kind in ("image", "image_url"):
            parts.append(read_image(find_source(part)))
        elif kind == "video":
            parts.append(read_video(part))
        else:
            accepted = "text, image, image_url, video" if vision else "text"
            raise ValueError(f"message part of type {kind!r} is not supported; accepted: {accepted}")
    return "\n".join(parts) if all(isinstance(part, str) for part in parts) else parts
