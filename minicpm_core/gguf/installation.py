"""Finds out whether llama-cpp-python works on this machine before it can end the process."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

REINSTALL = (
    'CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON" '
    "pip install --force-reinstall --no-deps --no-binary llama-cpp-python --no-cache-dir llama-cpp-python"
)
"""Builds for any x86 processor since 2015, without AMX, whose kernels were seen to crash."""
_TIME_LIMIT = 600.0
"""Seconds for a probe; it reads the whole model from disk."""
_PROBE = """
import logging, sys
import llama_cpp as c
logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
if b"AMX_INT8 = 1" in c.llama_print_system_info():
    o = c.llama_model_default_params()
    o.n_gpu_layers = 0
    m = c.llama_model_load_from_file(sys.argv[1].encode(), o)
    s = c.llama_context_default_params()
    s.n_ctx = s.n_batch = s.n_ubatch = 64
    x = c.llama_init_from_model(m, s) if m else None
    for n in (32, 1) if x else ():
        b = c.llama_batch_get_one((c.llama_token * n)(), n)
        c.llama_decode(x, b)
"""


def check_installation(model: Path) -> None:
    """Raise where llama-cpp-python is missing or would end this process by a signal.

    It is imported in a process of its own first and, where it was built with AMX, lets the model read a few tokens
    there. Both happen once for each model.

    Raises:
        ImportError: it is not installed, cannot be imported, or crashes; tells the command that helps.
    """
    if find_spec("llama_cpp") is None:
        raise ImportError(
            "GGUF files need llama-cpp-python, which is compiled when it is installed (many minutes): "
            f"{REINSTALL.replace('--force-reinstall --no-deps ', '')}"
        )
    if problem := _probe(str(model)):
        raise ImportError(problem)


@lru_cache(maxsize=16)
def _probe(model: str) -> str:
    """Return what is wrong, "" where nothing is."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE, model], capture_output=True, timeout=_TIME_LIMIT)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # nothing is known: a machine that starts no processes, or is very slow
    return describe_end(done.returncode, done.stderr.decode(errors="replace"))


def describe_end(code: int, output: str) -> str:
    """Return what the end of the probe tells, and what to do about it; "" where it ended well.

    Args:
        code: as `subprocess` tells it, below zero for a signal.
        output: what it wrote to stderr.
    """
    if code == 0:
        return ""
    if code < 0:
        names = {int(one): one.name for one in signal.Signals}
        return (
            f"llama-cpp-python crashes on this machine ({names.get(-code, f'signal {-code}')}): it was built for other "
            f"processor instructions than work here (seen with AMX); install it again without them: {REINSTALL}"
        )
    lines = output.strip().splitlines()
    reason = lines[-1][:200] if lines else f"exit status {code}"
    return f"llama-cpp-python cannot be used ({reason}); install it again: {REINSTALL}"
