"""Ctrl-C, forks, new processes and restarted kernels: nothing hangs, and nothing is left behind."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from langchain_minicpm import ChatMiniCPM
from llamaindex_minicpm import MiniCPM
from minicpm_core import Sampling
from minicpm_core.index import Index
from minicpm_core.index.lock import LOCK_NAME, writer_lock
from tests.killed_build import SETTINGS, WordEmbedder
from tests.test_faults_index import check_sound, write_docs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")
ROOT = Path(__file__).parent.parent
HELLO = [{"role": "user", "content": "hello"}]
GREEDY = Sampling(temperature=0, max_new_tokens=8)
PATIENCE = 60


def interrupt(code: str, *arguments: object, **environment: str) -> tuple[int, str, str]:
    """Run code that prints "now" where Ctrl-C is to come, once; return its exit code, and what it wrote after that."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None
        while (line := child.stdout.readline()) and not line.endswith("now\n"):
            pass
        assert line, child.communicate()[1]
        child.send_signal(signal.SIGINT)
        try:
            out, err = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            pytest.fail(f"did not end within {PATIENCE} s after Ctrl-C: {err[-2000:]}")
    return child.returncode, out, err


_SAY = """
import sys, threading
sys.path.insert(0, ".")
from minicpm_app.cli import main
def say():
    print("now", flush=True)
def after(owner, name, count=1):
    step, calls = getattr(owner, name), []
    def run(*args, **options):
        calls.append(1)
        result = step(*args, **options)
        if len(calls) == count:
            say()
        return result
    setattr(owner, name, run)
"""

_ASK = (
    _SAY
    + """
import minicpm_core.generation as generation
from minicpm_core.prefix import Context
after(Context, "read", 3)
def slow(read):
    def run(*args, **options):
        import time
        time.sleep(0.05)
        return read(*args, **options)
    return run
Context.read = slow(Context.read)
sys.exit(main(["chat", "--model", "demo"]))
"""
)


def test_ctrl_c_in_an_answer_ends_the_command_with_130(tmp_path: Path) -> None:
    code = _ASK.replace(
        'main(["chat", "--model", "demo"])', 'main(["ask", "Who?", "--docs", sys.argv[1], "--model", "demo"])'
    )
    docs = write_docs(tmp_path / "docs", files=1)
    status, _, error = interrupt(code, docs, MINICPM_CACHE=str(tmp_path / "cache"))
    assert (status, error) == (130, "\n")
    assert not list(tmp_path.rglob("*.tmp"))


_LOAD = (
    _SAY
    + """
import minicpm_core
from minicpm_core.int4 import copying, model
model._WORTH = 0
after(copying.Copy, "write", 2)
sys.exit(main(["ask", "Who?", "--docs", sys.argv[2], "--embeddings", "demo", "--model", sys.argv[1], "--quantization",
               "int4"]))
"""
)


def test_ctrl_c_while_loading_leaves_no_half_written_copy(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from tests.toy import write_llama

    model = write_llama(tmp_path / "model", num_hidden_layers=8)
    docs, cache = write_docs(tmp_path / "docs", files=1), tmp_path / "cache"
    status, _, error = interrupt(_LOAD, model, docs, MINICPM_CACHE=str(cache))
    assert status == 130
    assert "Traceback" not in error  # bitsandbytes has a line of its own
    assert [path.name for path in (cache / "int4").iterdir() if path.suffix != ".digest"] == []
    with minicpm_core.load(model, quantization="int4") as engine:
        assert engine.generate(HELLO, sampling=GREEDY).usage is not None


_INDEX = (
    _SAY
    + """
from tests import killed_build
from minicpm_core.index import build_index, writing
from minicpm_core.index.catalog import Catalog
owner, name, count = {
    "begin": (Catalog, "begin_file", 1),
    "store": (writing, "store_chunks", 3),
    "finish": (Catalog, "end_file", 3),
}[sys.argv[3]]
after(owner, name, count)
step = getattr(owner, name)
def slow(*args, **options):
    result = step(*args, **options)
    import time
    time.sleep(0.2)
    return result
setattr(owner, name, slow)
try:
    build_index(sys.argv[1], persist_directory=sys.argv[2], embeddings=killed_build.WordEmbedder(),
                settings=killed_build.SETTINGS)
except KeyboardInterrupt:
    print([thread.name for thread in threading.enumerate()])
    sys.exit(130)
"""
)


@pytest.mark.parametrize("moment", ["begin", "store", "finish"])
def test_ctrl_c_while_indexing_leaves_an_index_that_goes_on(tmp_path: Path, moment: str) -> None:
    docs, store = write_docs(tmp_path / "docs", files=6), tmp_path / "store"
    status, out, error = interrupt(_INDEX, docs, store, moment)
    assert (status, error) == (130, "")
    assert out.strip() == "['MainThread']"
    if moment == "begin":
        assert list(store.iterdir()) == []  # nothing was finished: there is no index
    else:
        with writer_lock(store):
            pass
        with Index.open(store, WordEmbedder()) as index:
            assert 1 <= len(index.sources()) < 6
            assert index.search("lamp", k=1)
        assert (store / LOCK_NAME).read_text() == ""
    from minicpm_core.index import build_index

    build_index(docs, persist_directory=store, embeddings=WordEmbedder(), settings=SETTINGS)
    check_sound(store, files=6)


_COMMAND = (
    _SAY
    + """
from minicpm_core.index import writing
after(writing, "store_chunks", 2)
sys.exit(main(["index", sys.argv[1], "--index", sys.argv[2], "--embeddings", "demo"]))
"""
)


def test_ctrl_c_in_the_index_command_is_no_traceback(tmp_path: Path) -> None:
    docs, store = write_docs(tmp_path / "docs", files=30), tmp_path / "store"
    status, _, error = interrupt(_COMMAND, docs, store)
    assert (status, error) == (130, "\n")
    with Index.open(store) as index:
        assert 1 <= len(index.sources()) < 30


def test_ctrl_c_in_a_program_stops_the_model_and_the_engine_goes_on(toy: Path) -> None:
    with minicpm_core.load(toy) as engine:
        expected = engine.generate(HELLO, sampling=GREEDY)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            [engine.generate(HELLO, sampling=Sampling(max_new_tokens=400)) for _ in range(10_000)]
        assert engine.generate(HELLO, sampling=GREEDY) == expected  # the one before has ended
        assert not engine._worker._jobs


# Forks and new processes


def _in_child(act: Any) -> str:
    """Return what `act` says in a forked child, or how it failed."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(act())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(send, text.encode()[:4000])
        os._exit(0)
    os.close(send)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, _ = os.waitpid(child, os.WNOHANG)
        if done:
            with os.fdopen(receive) as pipe:
                return pipe.read()
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(receive)
    return "hung"


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_an_engine_of_before_a_fork_says_so_and_is_not_waited_for(toy: Path) -> None:
    with minicpm_core.load(toy) as engine:
        expected = engine.generate(HELLO, sampling=GREEDY)
        told = _in_child(lambda: engine.generate(HELLO, sampling=GREEDY))
        assert told.startswith("RuntimeError: the engine of ")
        assert "was loaded before this process was forked" in told
        assert "'spawn'" in told
        assert _in_child(engine.close) == "None"
        assert engine.generate(HELLO, sampling=GREEDY) == expected  # the parent's goes on


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_the_frameworks_classes_load_anew_in_a_forked_process(toy: Path) -> None:
    import torch

    before = torch.get_num_threads()
    chat = ChatMiniCPM(model=str(toy), temperature=0, max_tokens=8)
    try:
        torch.set_num_threads(2)
        torch.ones(1500, 1500).add(1)  # starts OpenMP's threads, which a child does not have
        expected = chat.invoke("hello").text
        assert _in_child(lambda: (chat.invoke("hello").text, torch.ones(1500, 1500).add(1).sum().item())) == str(
            (expected, 4500000.0)
        )
    finally:
        torch.set_num_threads(before)
    chat.load_engine().close()


def _ask(model: Any) -> str:
    return str(model.invoke("hello").text if isinstance(model, ChatMiniCPM) else model.complete("hello").text)


def test_spawned_processes_take_the_frameworks_classes(toy: Path) -> None:
    models = [
        ChatMiniCPM(model=str(toy), temperature=0, max_tokens=8),
        MiniCPM(model=str(toy), temperature=0, max_tokens=8),
    ]
    expected = [_ask(model) for model in models]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_ask, models) == expected
    models[0].load_engine().close()  # type: ignore[union-attr]


def test_an_engine_is_not_pickled_and_says_what_to_do(toy: Path) -> None:
    with (
        minicpm_core.load(toy) as engine,
        pytest.raises(TypeError, match="cannot be copied or sent to another process"),
    ):
        pickle.dumps(engine)


# Kernels


@pytest.mark.enable_socket  # the kernel is talked to over loopback
@pytest.mark.filterwarnings("default")  # jupyter's own
def test_a_kernel_that_is_interrupted_or_restarted_leaves_no_lock(tmp_path: Path) -> None:
    manager = pytest.importorskip("jupyter_client").KernelManager(kernel_name="python3")
    docs, store = write_docs(tmp_path / "docs", files=8), tmp_path / "store"
    build = (
        "import time\nfrom minicpm_core.index import build_index\n"
        "from tests.killed_build import SETTINGS, WordEmbedder\n"
        f"docs, store = {str(docs)!r}, {str(store)!r}\n"
        "def wait(progress):\n    if progress.done > 2:\n        print('now', flush=True)\n        time.sleep(SLEEP)\n"
        "build_index(docs, persist_directory=store, embeddings=WordEmbedder(), settings=SETTINGS, on_progress=wait)"
    )
    manager.start_kernel(cwd=str(ROOT))
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE)
        cell = _run_until_now(client, build.replace("SLEEP", "60"))
        manager.interrupt_kernel()
        assert _finish(client, cell) == "KeyboardInterrupt"
        _run_until_now(client, build.replace("SLEEP", "60"))  # the same kernel takes the lock again
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=PATIENCE)
        assert _finish(client, client.execute(build.replace("SLEEP", "0"))) == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    check_sound(store, files=8)


def _run_until_now(client: Any, code: str) -> str:
    cell = str(client.execute(code))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if message["parent_header"].get("msg_id") != cell:
            continue
        if message["content"].get("text", "").startswith("now"):
            return cell
        assert message["msg_type"] != "error", message["content"]
    pytest.fail("the kernel did not begin")


def _finish(client: Any, cell: str) -> str:
    """Return "ok", or the name of the error with which a cell ended."""
    while (message := client.get_shell_msg(timeout=PATIENCE))["parent_header"].get("msg_id") != cell:
        pass
    return str(message["content"].get("ename") or message["content"]["status"])
