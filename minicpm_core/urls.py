"""URLs with a user name or password in them, which messages, logs and traces must not show."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=//)[^/?#\s]*@")


def hide_password(text: str) -> str:
    """Return a text with *** in place of the user name and password of the URLs in it."""
    return _USER.sub("***@", text)


def refuse_password(url: str | None, name: str, instead: str) -> None:
    """Raise ValueError where a URL holds a user name or password, which would be shown wherever the URL is.

    Args:
        url: None is accepted.
        name: of the argument.
        instead: what to use, as in "give api_key".
    """
    if url is not None and _USER.search(url):
        raise ValueError(f"{name} {hide_password(url)} holds a user name or password, which logs would show; {instead}")
