"""A row of an evaluation measured in a process of its own, so that the memory is that row's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from minicpm_core.evaluation import Evaluation, Failure, Settings, evaluate
from minicpm_core.quiet import quiet
from minicpm_core.threads import wait_briefly

_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from minicpm_core.evaluation_process import main; main()"


def evaluate_apart(model: str, quantization: str, text: str, settings: Settings) -> Evaluation | Failure:
    """Do what `evaluate` does in a process of its own.

    What goes wrong there, the system's end of the process included, is a `Failure`.
    """
    request = {"model": model, "quantization": quantization, "text": text, "settings": asdict(settings)}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *sys.path],
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        return Failure(model, quantization, _describe_end(done.returncode, done.stderr))
    answer = json.loads(done.stdout)
    if "error" in answer:
        return Failure(model, quantization, answer["error"])
    sys.stderr.write(done.stderr)  # warnings
    return Evaluation(**answer | {"log_likelihoods": tuple(answer["log_likelihoods"])})


def _describe_end(code: int, stderr: str) -> str:
    """Return why a process ended that gave no answer."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        memory = ", as it does when the memory runs out" if name == "SIGKILL" else ""
        return f"the process was ended by the system ({name}){memory}"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return f"the process ended with code {code}: {lines[-1].strip() if lines else 'it said nothing'}"


def main() -> None:
    """Measure what the JSON on standard input asks for; print JSON: an `Evaluation`, or {"error"}."""
    wait_briefly()
    os.environ["MINICPM_CACHE"] = "off"  # a row must not depend on what an earlier one has left
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # what libraries print is no part of the answer
        request = json.loads(sys.stdin.buffer.read())
        settings = Settings(**request.pop("settings"))
        try:
            with quiet():  # bitsandbytes logs a line per layer and token in int8
                answer: dict[str, Any] = asdict(evaluate(settings=settings, **request))
        except Exception as error:
            answer = {"error": " ".join(str(error).split()) or type(error).__name__}
        out.write(json.dumps(answer))
