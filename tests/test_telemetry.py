"""Nothing calls home: a process that builds and asks an index notes every attempt to reach another machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = """
import json, socket, sys
attempts = []

def note(name, place):
    attempts.append([name, repr(place)])
    raise OSError("closed for the test")

connect = socket.socket.connect

def watched(self, place):
    return connect(self, place) if self.family == socket.AF_UNIX else note("connect", place)

socket.socket.connect = watched
socket.socket.connect_ex = lambda self, place: note("connect_ex", place)
socket.socket.sendto = lambda self, *args: note("sendto", args[-1])
socket.getaddrinfo = lambda *args, **kwargs: note("getaddrinfo", args)
socket.gethostbyname = lambda *args: note("gethostbyname", args)
"""
END = """
import threading, time
for thread in threading.enumerate():
    if thread is not threading.current_thread() and not thread.daemon:
        thread.join(10)
time.sleep(0.2)
print("ATTEMPTS " + json.dumps(attempts))
"""
TALK = """
from pathlib import Path
from langchain_minicpm import ChatMiniCPM, build_index, create_rag_chain, load_index
from minicpm_core.rag import RagSettings
folder = Path(sys.argv[1])
(folder / "a.txt").write_text("The warranty of the lamp is two years. The lamp is red.")
build_index(folder / "a.txt", persist_directory=folder / "index", embeddings="demo", settings=RagSettings.demo())
chain = create_rag_chain(ChatMiniCPM(model="demo", max_tokens=8), load_index(folder / "index"))
print(chain.invoke({"question": "How long is the warranty?"})["answer"])
from llama_index.core.base.llms.types import ChatMessage
from llamaindex_minicpm import MiniCPM, create_query_engine
from llamaindex_minicpm import load_index as load_other
engine = create_query_engine(load_other(folder / "index"), MiniCPM(model="demo", max_tokens=8))
print(engine.query("How long is the warranty?"))
"""
PAGE = """
from minicpm_app.web import require_gradio
require_gradio()
import gradio
with gradio.Blocks(analytics_enabled=False) as blocks:
    gradio.Markdown("x")
"""
SENDERS = """
import threading
senders = sorted({name.partition(".")[0] for name in sys.modules} & {"posthog", "segment", "sentry_sdk"})
assert not senders, f"loaded: {senders}"
threads = [thread for thread in threading.enumerate() if "posthog" in type(thread).__module__]
assert not threads, f"running: {threads}"
"""
COMMAND = """
from minicpm_app.cli import main
folder = sys.argv[1]
open(folder + "/a.txt", "w").write("The warranty of the lamp is two years.")
options = ["--model", "demo", "--docs", folder + "/a.txt", "--index", folder + "/i"]
assert main(["ask", "How long is the warranty?", *options]) == 0
"""
SWITCHES = ("TELEMETRY", "ANALYTICS", "TRACING", "OFFLINE", "DO_NOT_TRACK", "LANGSMITH", "LANGCHAIN")


def _run(code: str, folder: Path) -> list[list[str]]:
    """Return the attempts of a process in which nothing is switched off from outside."""
    kept = {name: value for name, value in os.environ.items() if not any(word in name for word in SWITCHES)}
    environment = {**kept, "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", GUARD + code + END, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    attempts: list[list[str]] = json.loads(done.stdout.rpartition("ATTEMPTS ")[2])
    return attempts


def test_an_index_is_built_and_asked_without_an_attempt(tmp_path: Path) -> None:
    assert _run(TALK + COMMAND + SENDERS, tmp_path) == []


def test_the_page_is_made_without_an_attempt(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    assert _run(PAGE, tmp_path) == []


def test_an_attempt_would_be_seen(tmp_path: Path) -> None:
    code = "import urllib.request\ntry:\n    urllib.request.urlopen('http://example.com')\nexcept OSError:\n    pass\n"
    assert [name for name, _ in _run(code, tmp_path)] == ["getaddrinfo"]
