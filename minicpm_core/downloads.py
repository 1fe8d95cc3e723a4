"""Downloads of the last minutes: what stands in a conversation as a URL is fetched once, and not in each turn."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from minicpm_core.fetching import download

MAX_KEPT_BYTES = 64 * 2**20
KEPT_SECONDS = 600.0


class Downloads:
    """Keeps what was downloaded, the one that was asked for longest ago going first; any thread may use it.

    A content goes after some time, since what a URL leads to may change; what the server forbids to keep is not kept.

    Args:
        limit: bytes of all contents together.
        seconds: that each is kept.
    """

    def __init__(self, limit: int = MAX_KEPT_BYTES, seconds: float = KEPT_SECONDS) -> None:
        self._limit, self._seconds = limit, seconds
        self._kept: OrderedDict[tuple[str, bool], tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """The bytes that it holds."""
        with self._lock:
            return self._size()

    def fetch(self, url: str, *, max_bytes: int, allow_private: bool = False) -> bytes:
        """Return the content of a URL; see `fetching.download`, which also tells the errors.

        What was fetched with `allow_private` serves only for requests that have it too.
        """
        key = url, allow_private
        with self._lock:
            ends, content = self._kept.get(key, (0.0, b""))
            if time.monotonic() < ends and len(content) <= max_bytes:
                self._kept.move_to_end(key)
                return content
        content, lasts = download(url, max_bytes=max_bytes, allow_private=allow_private)
        with self._lock:
            self._kept.pop(key, None)
            if lasts and len(content) <= self._limit:
                self._kept[key] = time.monotonic() + self._seconds, content
            now = time.monotonic()
            for old in [old for old, (ends, _) in self._kept.items() if ends <= now]:
                del self._kept[old]
            while self._size() > self._limit:
                self._kept.popitem(last=False)
        return content

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()

    def _size(self) -> int:
        return sum(len(content) for _, content in self._kept.values())


RECENT = Downloads()
"""Those of this process."""
