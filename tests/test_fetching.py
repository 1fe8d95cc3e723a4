"""Downloads from a real server on loopback: what comes, what is refused, and that nothing private is asked."""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from minicpm_core import PictureSettings, fetching
from minicpm_core.downloads import RECENT, Downloads
from minicpm_core.fetching import fetch, is_public
from minicpm_core.messages import check_messages

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1", "::1"])]
CONTENT = bytes(range(256)) * 40


class Site(BaseHTTPRequestHandler):
    """Says what its paths ask for, and notes what was asked."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        try:
            getattr(self, "do_" + self.path.strip("/").split("/")[0].split("?")[0].split(".")[0])()
        except (BrokenPipeError, ConnectionResetError):
            pass

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def do_file(self) -> None:
        self.answer(200, CONTENT, Content_Length=str(len(CONTENT)))

    def do_picture(self) -> None:
        stream = io.BytesIO()
        Image.new("RGB", (7, 5)).save(stream, "PNG")
        self.answer(200, stream.getvalue())

    def do_passing(self) -> None:
        self.answer(200, CONTENT, Cache_Control="private, No-Store")

    def do_unsized(self) -> None:
        self.answer(200, CONTENT)

    def do_chunked(self) -> None:
        self.answer(200, b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT), Transfer_Encoding="chunked")

    def do_short(self) -> None:
        self.answer(200, CONTENT[:-1], Content_Length=str(len(CONTENT)))

    def do_large(self) -> None:
        self.answer(200, Content_Length="99999999999")

    def do_endless(self) -> None:
        self.answer(200)
        while True:
            self.wfile.write(CONTENT)

    def do_missing(self) -> None:
        self.answer(404)

    def do_compressed(self) -> None:
        self.answer(200, b"xx", Content_Encoding="gzip")

    def do_slow(self) -> None:
        self.answer(200)
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def do_to(self) -> None:
        self.answer(302, Location=self.path.split("?", 1)[1])

    def do_loop(self) -> None:
        self.answer(302, Location="/loop")

    def do_silent(self) -> None:
        pass

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    handler = type("OneSite", (Site,), {"asked": []})
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


def get(url: str, **options: Any) -> bytes:
    return fetch(url, **{"max_bytes": len(CONTENT), "allow_private": True, "timeout": 5.0, **options})


@pytest.mark.parametrize("path", ["file", "unsized", "chunked", "file/a%20b?c=d%26e#f", "to?/file", "to?/to?/file"])
def test_contents_are_downloaded(path: str, site: Any) -> None:
    url, asked = site
    assert get(f"{url}/{path}") == CONTENT
    assert asked[0] == ("/" + path.partition("#")[0], url.removeprefix("http://"))


def test_a_picture_of_a_message_comes_from_the_server(site: Any) -> None:
    part = {"type": "image_url", "image_url": {"url": f"{site[0]}/to?/picture.png"}}
    asked = [{"role": "user", "content": [part]}]
    (message,) = check_messages(asked, vision=True, settings=PictureSettings(allow_private_urls=True))
    assert message["content"][0].size == (7, 5)
    with pytest.raises(ValueError, match=r"127.0.0.1, which is not a public one; .*allow_private_urls=True"):
        check_messages(asked, vision=True)
    assert [path for path, _ in site[1]] == ["/to?/picture.png", "/picture.png"], "and nothing the second time"


def test_a_picture_of_the_history_is_fetched_once(site: Any) -> None:
    RECENT.clear()
    part = {"type": "image", "url": f"{site[0]}/picture.png"}
    for turns in (1, 2):
        asked = [{"role": "user", "content": [part]}] * turns
        check_messages(asked, vision=True, settings=PictureSettings(allow_private_urls=True))
    assert [path for path, _ in site[1]] == ["/picture.png"]
    with pytest.raises(ValueError, match="not a public one"):  # what was fetched with leave needs it again
        check_messages(asked, vision=True)
    RECENT.clear()


def test_what_is_kept_is_bounded_ends_and_obeys_the_server(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, asked = site
    kept = Downloads(limit=2 * len(CONTENT), seconds=60)

    def ask(*paths: str, **options: Any) -> list[str]:
        asked.clear()
        for path in paths:
            given = {"max_bytes": len(CONTENT), "allow_private": True, **options}
            assert kept.fetch(f"{url}/{path}", **given) == CONTENT
        return [path.strip("/") for path, _ in asked]

    assert ask("file/1", "file/2", "file/1") == ["file/1", "file/2"]
    assert ask("file/3", "file/1", "file/2") == ["file/3", "file/2"], "the one that was used longest ago went"
    assert kept.size == 2 * len(CONTENT)
    assert ask("passing", "passing", "file/2") == ["passing", "passing"]
    with pytest.raises(ValueError, match="more than 5 bytes"):
        ask("file/2", max_bytes=5)
    now = time.monotonic()
    monkeypatch.setattr("minicpm_core.downloads.time", SimpleNamespace(monotonic=lambda: now + 61))
    assert ask("file/2", "file/2") == ["file/2"]
    assert kept.size == len(CONTENT), "what has ended takes no room"
    small = Downloads(limit=5)
    assert small.fetch(f"{url}/file", max_bytes=len(CONTENT), allow_private=True) == CONTENT
    assert small.size == 0


def test_spaces_and_other_letters_are_quoted(site: Any) -> None:
    url, asked = site
    assert get(f"{url}/file/图 片.png?x=é") == CONTENT
    assert asked[0][0] == "/file/%E5%9B%BE%20%E7%89%87.png?x=%C3%A9"


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("large", ValueError, "more than 10,240 bytes, the limit"),
        ("endless", ValueError, "more than 10,240 bytes, the limit"),
        ("loop", ValueError, "redirects more than 5 times"),
        ("compressed", ValueError, "sent compressed"),
        ("to?file:///etc/passwd", ValueError, "'file:///etc/passwd' is not downloaded; accepted: http://"),
        ("to?gopher://127.0.0.1/", ValueError, "gopher"),
        ("missing", ConnectionError, "cannot be downloaded: the answer is 404"),
        ("short", ConnectionError, "cannot be downloaded: .*10239"),
        ("silent", ConnectionError, "cannot be downloaded"),
    ],
)
def test_what_cannot_be_downloaded_says_why(path: str, error: type[Exception], says: str, site: Any) -> None:
    with pytest.raises(error, match=says):
        get(f"{site[0]}/{path}")


def test_one_byte_more_than_the_limit_is_refused(site: Any) -> None:
    for path in ("file", "unsized", "chunked"):
        with pytest.raises(ValueError, match=r"more than 10,239 bytes"):
            get(f"{site[0]}/{path}", max_bytes=len(CONTENT) - 1)


def test_the_time_is_for_all_of_it(site: Any) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"took longer than 0.4 seconds"):
        get(f"{site[0]}/slow", timeout=0.4)
    assert time.monotonic() - started < 3, "each byte had a time limit of its own"


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for scheme in ("http", "https"):
            with pytest.raises(TimeoutError, match=r"took longer than 0.3 seconds"):
                get(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/", timeout=0.3)


def test_a_name_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: waits.wait(10))
    with pytest.raises(TimeoutError, match=r"took longer than 0.2 seconds"):
        get("http://slow.example/", timeout=0.2)
    waits.set()


def test_private_addresses_are_refused_before_anything_is_sent(site: Any) -> None:
    url, asked = site
    port = url.rpartition(":")[2]
    hosts = ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
    for host in hosts:
        with pytest.raises((ValueError, ConnectionError), match=r"not a public one|not found"):
            get(f"http://{host}:{port}/file", allow_private=False)
    assert not asked


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "192.168.1.1"])
def test_redirects_are_checked_again(address: str, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, asked = site
    monkeypatch.setattr(fetching, "is_public", lambda a: str(a) == "127.0.0.1" or is_public(a))
    with pytest.raises(ValueError, match=f"{address} has the address {address}, which is not a public one"):
        get(f"{url}/to?http://{address}/latest/meta-data/", allow_private=False)
    assert len(asked) == 1


def test_a_name_is_resolved_once_and_the_checked_address_is_used(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, asked = site
    port = int(url.rpartition(":")[2])
    names: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> list[Any]:  # a name whose address changes, as in DNS rebinding
        names.append(host)
        address = "127.0.0.1" if len(names) == 1 else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetching, "is_public", lambda a: str(a) == "127.0.0.1")
    assert get(f"http://pictures.example:{port}/file", allow_private=False) == CONTENT
    assert names == ["pictures.example"]
    assert asked == [("/file", f"pictures.example:{port}")]


def test_one_private_address_among_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 80)) for a in ("93.184.216.34", "10.1.2.3")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ValueError, match=r"mixed.example has the address 10.1.2.3"):
        get("http://mixed.example/", allow_private=False)


def test_the_next_address_is_tried(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(site[0].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        unused = closed.getsockname()[1]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", p)) for p in (unused, port)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert get("http://two.example/file") == CONTENT


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://example.com/a.png", "accepted: http://host"),
        ("file:///etc/passwd", "accepted: http://host"),
        ("http:///a.png", "accepted: http://host"),
        ("http://user:secret@example.com/", "with a user name or password"),
        ("http://example.com:99999/", "is no URL"),
        ("http://[::1", "is no URL"),
        ("http://a..b/", "no valid host name"),
        ("picture.png", "accepted: http://host"),
    ],
)
def test_what_is_no_url_of_the_web(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        get(url)
    assert "secret" not in str(caught.value)


PRIVATE = """0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.255 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1
192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255
168.63.129.16 :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001:db8::1
2001:0:7f00:1::1 2002:7f00:1::1 2002:a00:1:: 2002:808:808::1
fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1""".split()
PUBLIC = """1.1.1.1 8.8.8.8 93.184.216.34 172.15.0.1 172.32.0.1 192.167.0.1 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8
64:ff9b::8.8.8.8""".split()


def test_what_is_public() -> None:
    assert [a for a in PRIVATE if is_public(ipaddress.ip_address(a))] == []
    assert [a for a in PUBLIC if not is_public(ipaddress.ip_address(a))] == []


def test_certificates_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[ssl.SSLContext] = []
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: contexts.append(create()) or contexts[-1])
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as client:
                client.sendall(b"no TLS")
                client.recv(9999)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ConnectionError, match="cannot be downloaded"):
            get(f"https://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    assert [(c.verify_mode, c.check_hostname) for c in contexts] == [(ssl.CERT_REQUIRED, True)]
