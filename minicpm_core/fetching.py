"""Files from the web, of a bounded size, in a bounded time, and not from inside the network.

A model answers questions of others, and what they name as a picture must not become a request to a machine that only
this one can reach (server-side request forgery). So a name is resolved once, every address of it is checked, and the
connection goes to a checked address; the same again for each redirect. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from minicpm_core.urls import hide_password

TIMEOUT = 20.0
"""Seconds for the whole of a download: names, redirects, headers and content."""
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_BLOCK = 2**16
_SAFE = "/%:@!$&'()*+,;=~-._?"
_PORTS = {"http": 80, "https": 443}
_PASSING = re.compile(r"no-store|no-cache|max-age=0\b", re.IGNORECASE)
_CLOUD = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")))
"""Addresses at which clouds tell a machine its secrets; 169.254.169.254 is link-local."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch(url: str, *, max_bytes: int, allow_private: bool = False, timeout: float = TIMEOUT) -> bytes:
    """Return the content of an http(s) URL; see `download`."""
    return download(url, max_bytes=max_bytes, allow_private=allow_private, timeout=timeout)[0]


def download(url: str, *, max_bytes: int, allow_private: bool = False, timeout: float = TIMEOUT) -> tuple[bytes, bool]:
    """Return the content of an http(s) URL, and whether the server lets it be kept (Cache-Control).

    Args:
        url: an absolute URL.
        max_bytes: larger contents are refused, at the latest when so much has come.
        allow_private: whether it may lead to private, loopback, link-local and other addresses that are not public.
        timeout: seconds for all of it.

    Raises:
        ValueError: another scheme, an address that is not allowed, too many redirects, or too large a content.
        ConnectionError: no such host, no connection, or an answer other than 200.
        TimeoutError: it took longer than `timeout`.
    """
    ends = time.monotonic() + timeout
    asked = url
    for _ in range(MAX_REDIRECTS + 1):
        parts = _split(url)
        try:
            addresses = _resolve(parts, allow_private, ends)
            with _connect(parts, addresses, ends) as connection:
                target, content, lasts = _get(connection, parts, max_bytes)
            _left(ends)  # a connection that was cut looks like the end of the content
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= ends or isinstance(error, TimeoutError):
                raise TimeoutError(f"{_show(asked)} took longer than {timeout:g} seconds to download") from error
            raise ConnectionError(f"{_show(url)} cannot be downloaded: {error}") from error
        if target is None:
            return content, lasts
        url = urljoin(url, target)
    raise ValueError(f"{_show(asked)} redirects more than {MAX_REDIRECTS} times")


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, those inside of it included (IPv4 in IPv6)."""
    if isinstance(address, ipaddress.IPv6Address):
        same = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.ipv4_mapped
        if same is not None:
            return is_public(same)
        if address.is_site_local or address.sixtofour is not None:  # the latter lead to any address, and are given up
            return False
    if address in _CLOUD:
        return False
    kinds = (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast)
    return address.is_global and not any(kinds) and not address.is_reserved and not address.is_unspecified


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{_show(url)} is no URL: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise ValueError(f"{_show(url)} is not downloaded; accepted: http://host/... and https://host/...")
    try:
        parts.hostname.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{_show(url)} has no valid host name: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user name or password is not downloaded; leave them out")
    return parts


def _resolve(parts: SplitResult, allow_private: bool, ends: float) -> list[Any]:
    """Return what `socket.getaddrinfo` says, after a check of every address."""
    port = parts.port or _PORTS[parts.scheme]
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:  # the system's resolver knows no time limit
        try:
            answers.put(socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answers.get(timeout=max(ends - time.monotonic(), 0.001))
    except queue.Empty:
        raise TimeoutError(f"the address of {parts.hostname} was not found in time") from None
    if isinstance(found, Exception):
        raise OSError(f"the host {parts.hostname} is not found ({found})") from found
    for *_, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        if not allow_private and not is_public(address):
            raise ValueError(
                f"{parts.hostname} has the address {address}, which is not a public one; download the file yourself, "
                "or allow it with allow_private_urls=True"
            )
    return list(found)


@contextmanager
def _connect(parts: SplitResult, addresses: list[Any], ends: float) -> Iterator[http.client.HTTPConnection]:
    """Yield a connection to one of the addresses, which is cut when the time has run out."""
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname)
    error: OSError = ConnectionError("it has no address")
    for kind, way, number, _, place in addresses:
        plain = socket.socket(kind, way, number)
        plain.settimeout(_left(ends))
        try:
            plain.connect(place)
        except OSError as failed:
            plain.close()
            error = failed
            continue
        break
    else:
        raise error
    # Each step has a time limit of its own, which a server that sends byte by byte never reaches.
    used = plain
    timer = threading.Timer(_left(ends), lambda: _cut(used))
    timer.daemon = True
    timer.start()
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            name = parts.hostname
            used = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
            used.do_handshake()
        connection.sock = used
        yield connection
    finally:
        timer.cancel()
        used.close()


def _get(connection: http.client.HTTPConnection, parts: SplitResult, max_bytes: int) -> tuple[str | None, bytes, bool]:
    """Return where to look instead, or None, the content, and whether it may be kept."""
    path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    headers = {
        "Host": _host(parts),
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": "minicpm",
    }
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    location = response.getheader("Location")
    if response.status in _REDIRECTS and location:
        return location, b"", False
    if response.status != 200:
        raise OSError(f"the answer is {response.status} {response.reason}")
    if response.getheader("Content-Encoding", "identity").lower() not in ("identity", ""):
        raise ValueError(f"{_show(parts.geturl())} is sent compressed, which was not asked for; download it yourself")
    lasts = not _PASSING.search(response.getheader("Cache-Control") or "")
    told = response.getheader("Content-Length") or ""
    content = bytearray()
    while len(content) <= max_bytes and not (told.isdigit() and int(told) > max_bytes):
        block = response.read(min(_BLOCK, max_bytes + 1 - len(content)))
        if not block:
            if told.isdigit() and len(content) < int(told):
                raise OSError(f"it ended after {len(content)} of {told} bytes")
            return None, bytes(content), lasts
        content += block
    raise ValueError(f"{_show(parts.geturl())} has more than {max_bytes:,} bytes, the limit; make it smaller")


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time has run out")
    return left


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):  # it has ended meanwhile
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # not SSL's own, which forgets its keys


def _host(parts: SplitResult) -> str:
    assert parts.hostname
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.encode("idna").decode()
    return name if parts.port in (None, _PORTS[parts.scheme]) else f"{name}:{parts.port}"


def _show(url: str) -> str:
    url = hide_password(url)
    return repr(url if len(url) <= 100 else url[:97] + "...")
