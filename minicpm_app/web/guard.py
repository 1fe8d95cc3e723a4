"""Who may reach the page: this machine alone, or others with a password."""

from __future__ import annotations

import hmac
import ipaddress
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PASSWORD_VARIABLE = "MINICPM_WEB_PASSWORD"
SHORTEST_PASSWORD = 8
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; form-action 'self'"
)
"""The browser asks no other machine for anything, whatever a document or an answer says."""


def is_local(host: str) -> bool:
    """Tell whether a server bound to `host` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def choose_password(host: str, given: str | None) -> str | None:
    """Return the password that is demanded, None for none.

    Raises:
        ValueError: others can reach `host` and there is none, or it is too short.
    """
    password = given if given is not None else os.environ.get(PASSWORD_VARIABLE) or None
    if password is None:
        if not is_local(host):
            raise ValueError(
                f"--host {host} opens the page to others, who could read your documents; set a password of "
                f"{SHORTEST_PASSWORD} characters or more in ${PASSWORD_VARIABLE} (or --password), or leave --host out"
            )
    elif len(password) < SHORTEST_PASSWORD:
        raise ValueError(f"the password has {len(password)} characters; accepted are {SHORTEST_PASSWORD} or more")
    return password


def check_login(password: str) -> Callable[[str, str], bool]:
    """Return the test of a name and a password; any name does, and a wrong password takes a second."""

    def check(_: str, said: str) -> bool:
        right = hmac.compare_digest(said.encode(), password.encode())
        if not right:
            time.sleep(1)
        return right

    return check


class Policy:
    """ASGI middleware that keeps the browser to this server, and other names than ours from a local one.

    Args:
        app: what answers.
        hosts: names that a request may be addressed to (no website can then pass for this one by its own DNS);
            None allows all.
    """

    def __init__(self, app: Any, hosts: tuple[str, ...] | None = None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._hosts is not None and name not in self._hosts:
            await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"unknown host name; open the address that was printed"})
            return

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", _POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *added, (b"referrer-policy", b"no-referrer")]}
            await send(message)

        from starlette.requests import ClientDisconnect

        with suppress(ClientDisconnect):  # of an upload that was given up
            await self._app(scope, receive, send_with_policy)
