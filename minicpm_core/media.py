"""What people give as a picture, a PDF or a film -> bytes: paths, URLs, data URIs, base64 text, message parts."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from minicpm_core.downloads import RECENT
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.urls import hide_password

fetch = RECENT.fetch
_LONGEST_PATH = 4096
_SHORTEST_CONTENT = 64
_DATA_URI = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
_INSIDE = ("url", "data", "file_data", "base64", "path", "file_url")
_ELSEWHERE = "is a file_id, which names a file that only another provider has"


class Encoded(str):
    """Base64 text or a data URI, and never the path of a file or a URL, whatever it looks like."""


@dataclass(frozen=True)
class Kind:
    """What is read.

    Args:
        noun: its name in messages.
        keys: of a message part, beside those that all kinds have.
        type: how its MIME types begin.
        accepted: what can be given, in words.
    """

    noun: str
    keys: tuple[str, ...]
    type: str
    accepted: str


def find_source(part: Mapping[str, Any], kind: Kind) -> Any:
    """Return what a message part gives as its content: of our form, OpenAI's, Anthropic's or LangChain's.

    Raises:
        ValueError: no key of the part, or more than one, gives it; or it names a file of another provider.
    """
    keys = (*kind.keys, "url", "path", "base64", "data", "source")
    given = [(key, part[key]) for key in keys if not _is_empty(part.get(key))]
    if not given and part.get("file_id"):
        raise ValueError(f"a part of type {part.get('type')!r} {_ELSEWHERE}; give the {kind.noun} itself")
    if len(given) != 1:
        names = ", ".join(str(key) for key in part) or "none"
        raise ValueError(f"a {kind.noun} part needs exactly one of {', '.join(keys)}; its keys are: {names}")
    key, value = given[0]
    if isinstance(value, Mapping):
        inside = [(name, value[name]) for name in _INSIDE if not _is_empty(value.get(name))]
        if len(inside) != 1:
            what = _ELSEWHERE if value.get("file_id") else f"has the keys {', '.join(map(str, value)) or 'none'}"
            raise ValueError(f"{key} of a {kind.noun} part {what}; accepted: one of {', '.join(_INSIDE)}")
        key, value = inside[0]
    if isinstance(value, str) and key in ("base64", "data", "file_data"):
        return Encoded(value)
    return Path(value) if key == "path" and isinstance(value, str) else value


def read_bytes(source: Any, kind: Kind, max_bytes: int, settings: PictureSettings) -> tuple[bytes, str]:
    """Return the content, and its name for messages.

    Args:
        source: a path, a URL (http, https, file), bytes, an open file, a data URI or base64 text.
        kind: what it is.
        max_bytes: the most that is accepted.
        settings: whether URLs may lead to private addresses.

    Raises:
        FileNotFoundError: a path that does not exist.
        TypeError: another kind of value.
        ValueError: too many bytes, a text of none of these forms, or a URL that may not be downloaded.
        ConnectionError, TimeoutError: a URL that could not be downloaded.
    """
    limit = _Limit(kind, max_bytes)
    if isinstance(source, Path):
        return limit.read_file(source), str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return limit.check(bytes(source)), "the bytes"
    if callable(getattr(source, "read", None)):
        content = source.read(max_bytes + 1)
        if not isinstance(content, bytes):
            raise TypeError(f"the {kind.noun} is a file that was opened as text; open it in binary mode")
        return limit.check(content), "the open file"
    if not isinstance(source, str):
        raise TypeError(f"a {kind.noun} is given as a {type(source).__name__}; accepted: {kind.accepted}")
    plain = hide_password(source[:200])
    shown = repr(plain if len(plain) <= 60 else plain[:57] + "...")
    if _DATA_URI.match(source):
        return limit.read_data_uri(source, shown), shown
    if isinstance(source, Encoded):
        return limit.read_base64(source), "the base64 text"
    scheme = source.partition("://")[0].lower() if "://" in source[:12] else ""
    if scheme in ("http", "https"):
        return fetch(source, max_bytes=max_bytes, allow_private=settings.allow_private_urls), shown
    if scheme == "file":
        return limit.read_file(Path(url2pathname(urlsplit(source).path))), shown
    if scheme.isalnum():
        raise ValueError(f"the {kind.noun} {shown} is not downloaded; accepted are URLs with http, https and file")
    path = os.path.expanduser(source) if len(source) < _LONGEST_PATH else ""
    if path and os.path.isfile(path):  # pathlib's raises for a name that is too long
        return limit.read_file(Path(path)), shown
    if len(source) < _SHORTEST_CONTENT or "." in source:  # base64 has no dots, the name of a file has
        raise FileNotFoundError(f"no {kind.noun} file {shown}; accepted: {kind.accepted}")
    return limit.read_base64(source), "the base64 text"


@dataclass(frozen=True)
class _Limit:
    kind: Kind
    max_bytes: int

    def check(self, content: bytes) -> bytes:
        if len(content) > self.max_bytes:
            raise ValueError(f"the {self.kind.noun} has more than {self.max_bytes:,} bytes, the limit; make it smaller")
        return content

    def read_file(self, path: Path) -> bytes:
        path = path.expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"no {self.kind.noun} file {path}; accepted: {self.kind.accepted}")
        with path.open("rb") as stream:
            return self.check(stream.read(self.max_bytes + 1))

    def read_data_uri(self, text: str, shown: str) -> bytes:
        match = _DATA_URI.match(text)
        assert match
        given, options, content = match[1], match[2].lower(), text[match.end() :]
        if given and not given.lower().startswith((self.kind.type, "application/octet-stream")):
            raise ValueError(
                f"the data URI {shown} is of type {given}; a {self.kind.noun}'s type begins with {self.kind.type}"
            )
        return self.read_base64(content) if ";base64" in options else self.check(unquote_to_bytes(content))

    def read_base64(self, text: str) -> bytes:
        if len(text) > self.max_bytes * 4 // 3 + 4:
            raise ValueError(
                f"the base64 text stands for more than {self.max_bytes:,} bytes, the limit of a {self.kind.noun}"
            )
        compact = "".join(text.split()).replace("-", "+").replace("_", "/")
        try:
            return self.check(base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True))
        except binascii.Error as error:
            raise ValueError(f"the text is no base64 ({error}); accepted: {self.kind.accepted}") from error


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, bytes, Mapping)) and not value)
