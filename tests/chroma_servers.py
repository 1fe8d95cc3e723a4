"""A real Chroma server on loopback that tests stop and start again, and a proxy before it that asks for a token."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest


class ChromaProcess:
    """`chroma run` on a free port; `kill` is kill -9, and `start` goes on with the same data."""

    def __init__(self, data: Path) -> None:
        command = shutil.which("chroma", path=sysconfig.get_path("scripts")) or shutil.which("chroma")
        if command is None:
            pytest.skip("the command `chroma` of chromadb is not installed")
        self._command, self.data = command, data
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        where = ["--path", str(self.data), "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [self._command, "run", *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{self.url}/api/v2/heartbeat", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, "chroma ended"
            assert time.monotonic() < deadline, "chroma did not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """End the server at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def running(data: Path) -> Iterator[ChromaProcess]:
    """Run a server until the end of the block."""
    server = ChromaProcess(data)
    try:
        server.start()
        yield server
    finally:
        server.kill()


class TokenProxy:
    """What a reverse proxy does: hands requests with the right bearer token on, and answers 401 to others.

    Args:
        target: URL of the server behind it.
        token: what is asked for.
    """

    def __init__(self, target: str, token: str) -> None:
        self.seen: list[str | None] = []
        self.busy = 0  # requests that are answered 503 from now on
        proxy, client = self, httpx.Client(base_url=target)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                given = self.headers["Authorization"]
                proxy.seen.append(given)
                if given != f"Bearer {token}":
                    return self.send(401, b"Unauthorized")
                if proxy.busy:
                    proxy.busy -= 1
                    return self.send(503, b"no healthy upstream")
                kind = {"Content-Type": self.headers["Content-Type"] or "application/json"}
                found = client.request(self.command, self.path, content=body, headers=kind)
                self.send(found.status_code, found.content)

            def send(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = answer

        self._client, self._server = client, ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> TokenProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()
