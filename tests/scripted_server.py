"""A real HTTP server on loopback that answers requests with prepared events, or breaks off in the middle of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HEAD = {"id": "x", "object": "chat.completion.chunk", "model": "m"}


@dataclass(frozen=True)
class Reply:
    """One answer: events, then an orderly end unless `broken`; or a status other than 200."""

    events: Sequence[dict[str, Any]] = ()
    status: int = 200
    broken: bool = False
    pause: float = 0.0  # seconds before each event
    message: str = "no"  # of a status other than 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Script:
    """What the server answers, in order (the last reply again and again), and what it was asked."""

    url: str
    replies: list[Reply]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)  # a client went away in the middle
    running: int = 0
    most: int = 0


def text_events(*pieces: str, finish: str = "stop", **delta: Any) -> list[dict[str, Any]]:
    """Return the events of an answer in words, with its usage."""
    events = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    events.append({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 5},
    }
    return [*events, {"choices": [], "usage": usage}]


@contextmanager
def scripted(*replies: Reply) -> Iterator[Script]:
    """Run the server on a free port."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                script.bodies.append({"path": self.path, **body})
                script.keys.append(self.headers["Authorization"])
                reply = script.replies.pop(0) if len(script.replies) > 1 else script.replies[0]
                script.running += 1
                script.most = max(script.most, script.running)
            try:
                self.answer(reply)
            except (BrokenPipeError, ConnectionResetError):
                script.left.set()
            finally:
                with lock:
                    script.running -= 1

        def answer(self, reply: Reply) -> None:
            if reply.status != 200:
                content = json.dumps({"error": {"message": reply.message}}).encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in reply.events:
                time.sleep(reply.pause)
                self.write(
                    f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'model': 'm', **event})}\n\n"
                )
            if reply.broken:
                self.close_connection = True
                self.connection.close()
                return
            self.write("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def write(self, text: str) -> None:
            content = text.encode()
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            self.wfile.flush()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script = Script(f"http://127.0.0.1:{server.server_port}/v1", list(replies))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
