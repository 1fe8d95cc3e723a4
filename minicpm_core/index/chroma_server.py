"""A Chroma server: its address, its token, and patience while it is away."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from minicpm_core.urls import refuse_password

if TYPE_CHECKING:
    import httpx
    from chromadb.api import ClientAPI

TOKEN_VARIABLE = "MINICPM_CHROMA_TOKEN"
DEFAULT_NAME = "minicpm"
PATIENCE = 60.0
"""Seconds for which a request is sent again while the server does not answer."""
CONNECT_SECONDS, READ_SECONDS = 10.0, 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_PASSING = (429, 502, 503, 504)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,200}[A-Za-z0-9]")


@dataclass(frozen=True)
class ChromaServer:
    """An index on a Chroma server; the token is in no text that this makes.

    Args:
        url: of the server, without the name of the index.
        name: of the index.
        token: sent as `Authorization: Bearer`.
    """

    url: str
    name: str = DEFAULT_NAME
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, token: str | None = None) -> ChromaServer:
        """Return what a URL such as "http://localhost:8000/contracts" names.

        Args:
            url: of the server, with the name of the index behind the last slash ("minicpm" where there is none).
            token: None takes the environment variable MINICPM_CHROMA_TOKEN, if it is set.

        Raises:
            ValueError: no http(s) URL, one with a password in it, or a name that Chroma does not take.
        """
        refuse_password(url, "chroma_url", f"give chroma_token, or set ${TOKEN_VARIABLE}")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"chroma_url is {url!r}; accepted: an http(s) URL such as http://localhost:8000/my-index")
        prefix, _, name = parts.path.rpartition("/")
        if name and not _NAME.fullmatch(name):
            raise ValueError(
                f"the index is named {name!r} by chroma_url; accepted: 3 letters, digits, '.', '_' or '-' and more, a "
                "letter or digit first and last"
            )
        base = f"{parts.scheme}://{parts.netloc}{prefix.rstrip('/')}"
        return cls(base, name or DEFAULT_NAME, token or os.environ.get(TOKEN_VARIABLE) or None)

    def __str__(self) -> str:
        return f"{self.url}/{self.name}"

    def folder(self) -> Path:
        """Return the folder in the cache for this machine's copy of the index's records.

        Raises:
            ValueError: the cache is switched off.
        """
        from minicpm_core.int4.cache import cache_folder

        cache = cache_folder()
        if cache is None:
            raise ValueError(
                f"the records of {self} need a folder on this machine, and the cache is switched off; give one as "
                "persist_directory"
            )
        return cache / "served" / hashlib.sha256(str(self).encode()).hexdigest()[:16]

    def connect(self) -> ClientAPI:
        """Return a client, after the server has answered it.

        Raises:
            ImportError: chromadb is missing.
            ConnectionError: the server does not answer.
            PermissionError: it does not take the token.
        """
        import chromadb
        import httpx
        from chromadb.config import Settings

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else None
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        try:  # Chroma's client leaves its connections open when it is refused
            httpx.get(f"{self.url}/api/v2/auth/identity", headers=headers, timeout=timeout).raise_for_status()
            client = chromadb.HttpClient(host=self.url, headers=headers, settings=Settings(anonymized_telemetry=False))
        except Exception as error:
            self._raise(error)
        sessions = _sessions(client)
        for session in sessions:
            session.timeout = timeout  # Chroma's client has none
        weakref.finalize(client, _close, sessions)  # nor does it close its connections
        return client

    def patiently(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return what a call returns, trying again for `PATIENCE` seconds while the server is away.

        Every request of an index can be sent twice: passages are written and deleted by their ids.
        """
        deadline, pause = time.monotonic() + PATIENCE, _FIRST_PAUSE
        while True:
            try:
                return call(*args, **options)
            except Exception as error:
                if not _is_away(error) or time.monotonic() + pause > deadline:
                    self._raise(error)
            time.sleep(pause * random.uniform(1.0, 1.25))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _raise(self, error: Exception) -> NoReturn:
        """Raise what Chroma's client raised, typed and with what to do."""
        import httpx
        from chromadb.errors import ChromaError

        if _status(error) in (401, 403) or type(error).__name__ in ("AuthorizationError", "ChromaAuthError"):
            raise PermissionError(
                f"{self.url} refused the token: give chroma_token, or set ${TOKEN_VARIABLE}, with what the server, or "
                "the proxy before it, accepts"
            ) from error
        if _is_away(error) or isinstance(error, httpx.HTTPStatusError):
            told = str(error) or type(error).__name__
            raise ConnectionError(
                f"the Chroma server at {self.url} does not answer ({told}); is it running? What is finished stays; "
                "the next run goes on with the rest"
            ) from error
        if (status := _status(error)) is not None or isinstance(error, ChromaError):
            large = "; a page of a file is larger than it takes in one request (max_payload_size_bytes)"
            told = f"answered {status}" if status is not None else "answered"
            raise RuntimeError(
                f"the Chroma server at {self.url} {told}: {str(error)[:300]}{large if status == 413 else ''}"
            ) from error
        raise error


class PatientCollection:
    """A collection on a server; its calls are tried again while the server is away."""

    def __init__(self, server: ChromaServer, collection: Any) -> None:
        self._patient, self._collection = server, collection

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._collection, name)
        return partial(self._patient.patiently, found) if callable(found) else found


def disconnect(client: ClientAPI) -> None:
    """Close a client of a server, and its connections."""
    sessions = _sessions(client)
    closing: Any = client  # the class that Chroma's functions are typed with lacks it
    closing.close()
    _close(sessions)


def _close(sessions: list[httpx.Client]) -> None:
    for session in sessions:
        session.close()


def _sessions(client: Any) -> list[httpx.Client]:
    """Return the connections of Chroma's client, which it shows nowhere."""
    parts = (client, getattr(client, "_admin_client", None))
    found = (getattr(getattr(part, "_server", None), "_session", None) for part in parts)
    return [session for session in found if session is not None]


def describe_missing(server: ChromaServer) -> str:
    """Return the sentence about an index that is not on a server."""
    return f"there is no index on {server}; make one with build_index(paths, chroma_url={str(server)!r})"


def _is_away(error: BaseException) -> bool:
    import httpx

    return isinstance(error, httpx.TransportError) or _status(error) in _PASSING


def _status(error: BaseException) -> int | None:
    """Return the status of an answer that was made an error of, by Chroma's client or by httpx."""
    responses = (getattr(one, "response", None) for one in (error, error.__context__))
    return next((answer.status_code for answer in responses if answer is not None), None)
