"""Memory that runs out in the middle of an answer: a typed error with what helps, and an engine that goes on."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from langchain_minicpm import ChatMiniCPM
from llamaindex_minicpm import MiniCPM
from minicpm_core import Engine, OutOfMemoryError, Sampling
from minicpm_core.errors import is_exhaustion

ROOT = Path(__file__).parent.parent
HELLO = [{"role": "user", "content": "hello there, how are you today?"}]
GREEDY = Sampling(temperature=0, max_new_tokens=24)
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4294967296 bytes. Error code 12 (Cannot allocate memory)"
)


def _cuda(text: str) -> RuntimeError:
    import torch

    return torch.cuda.OutOfMemoryError(text)  # type: ignore[no-any-return]


ERRORS: dict[str, Callable[[], BaseException]] = {
    "torch on the CPU": lambda: RuntimeError(CPU),
    "torch on a GPU": lambda: _cuda("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
    "Python": lambda: MemoryError(),
    "C++": lambda: RuntimeError("std::bad_alloc"),
}


SIGNS = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3.81 GiB of which 1.20 GiB is free.",
    "HIP out of memory. Tried to allocate 2.00 GiB.",
    "XPU out of memory. Tried to allocate 2.00 GiB.",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY",
    "HIP error: hipErrorOutOfMemory",
    "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "MPS backend out of memory (MPS allocated: 17.70 GB, other allocations: 384.00 KB, max allowed: 18.13 GB).",
    "Invalid buffer size: 19.45 GiB",
    CPU,
    "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
    "unable to mmap 4294967296 bytes from file </model>: Cannot allocate memory (12)",
    "std::bad_alloc",
    "llama.cpp failed to allocate what it needs: 512 tokens behind 0 (code -2)",
]
OTHERS = [
    "shapes differ",
    "CUDA error: device-side assert triggered",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
    "llama.cpp could not read: 512 tokens behind 0 (code 1)",
]


@pytest.fixture(scope="module")
def engine(toy: Path) -> Iterator[Engine]:
    with minicpm_core.load(toy, memory_limit="2GiB") as engine:
        yield engine


class Failing:
    """A forward pass that fails at its `at`th call, while a tensor of the request is alive; `held` watches that."""

    def __init__(self, forward: Any, make: Callable[[], BaseException], at: int) -> None:
        self.forward, self.make, self.at, self.calls = forward, make, at, 0
        self.held: weakref.ref[Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        import torch

        self.calls += 1
        if self.calls == self.at:
            large = torch.zeros(1000)
            self.held = weakref.ref(large)
            raise self.make()
        return self.forward(*args, **kwargs)


@pytest.mark.parametrize("at", [1, 5], ids=["in the prompt", "in the answer"])
@pytest.mark.parametrize("name", ERRORS)
def test_the_error_names_what_helps_and_the_engine_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    expected = engine.generate(HELLO, sampling=GREEDY)
    engine._forget()
    failing = Failing(engine.model.forward, ERRORS[name], at)
    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "forward", failing)
        with pytest.raises(OutOfMemoryError) as told:
            engine.generate(HELLO, sampling=GREEDY)
        text = str(told.value)
        for knob in (
            "max_tokens",
            "context_window (it is 512)",
            "memory_limit (it is 2.00 GiB)",
            'quantization="int4"',
        ):
            assert knob in text
        assert "in the middle of an answer" in text
        assert told.value.__context__ is None  # its traceback would hold the tensors
        assert engine._prefixes._kept == []
    del told
    gc.collect()
    assert failing.held is not None
    assert failing.held() is None
    assert engine.generate(HELLO, sampling=GREEDY) == expected


def test_streams_batches_and_asyncio_tell_the_same(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engine.generate(HELLO, sampling=GREEDY)
    other = [{"role": "user", "content": "another question, of other words"}]
    asks: list[Callable[[], Any]] = [
        lambda: list(engine.stream(HELLO, sampling=GREEDY)),
        lambda: asyncio.run(engine.agenerate(HELLO, sampling=GREEDY)),
        lambda: engine.generate_batch([HELLO, other], sampling=GREEDY),
        lambda: ChatMiniCPM(engine=engine, temperature=0).invoke("hello"),
        lambda: MiniCPM(engine=engine, temperature=0).complete("hello"),
    ]
    for ask in asks:
        engine._forget()
        with monkeypatch.context() as patch:
            patch.setattr(engine.model, "forward", Failing(engine.model.forward, ERRORS["torch on the CPU"], 2))
            with pytest.raises(OutOfMemoryError, match=r"What helps: a shorter prompt, ") as told:
                ask()
        assert ("a smaller batch_size" in str(told.value)) == (ask is asks[2])
        assert engine.generate(HELLO, sampling=GREEDY) == expected


def test_who_waits_is_answered_after_a_failure(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engine.generate(HELLO, sampling=GREEDY)
    engine._forget()
    monkeypatch.setattr(engine.model, "forward", Failing(engine.model.forward, ERRORS["C++"], 3))

    async def both() -> list[Any]:
        asks = [engine.agenerate(HELLO, sampling=GREEDY) for _ in range(3)]
        return await asyncio.gather(*asks, return_exceptions=True)

    answers = asyncio.run(both())
    assert sum(isinstance(answer, OutOfMemoryError) for answer in answers) == 1
    assert sum(answer == expected for answer in answers) == 2


def test_other_errors_stay_what_they_are(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "forward", Failing(engine.model.forward, lambda: RuntimeError("shapes differ"), 1))
        with pytest.raises(RuntimeError, match="shapes differ"):
            engine.generate([{"role": "user", "content": "a prompt that was not read before"}], sampling=GREEDY)


def test_messages_of_allocators_and_libraries_are_recognised_and_others_not() -> None:
    assert [text for text in SIGNS if not is_exhaustion(RuntimeError(text))] == []
    assert [text for text in OTHERS if is_exhaustion(RuntimeError(text))] == []
    assert not is_exhaustion(ValueError("out of memory"))
    assert all(is_exhaustion(make()) for make in ERRORS.values())


_LIMITED = """
import faulthandler, resource, sys
import minicpm_core
from minicpm_core import OutOfMemoryError, Sampling
one = Sampling(temperature=0, max_new_tokens=4)
engine = minicpm_core.load(sys.argv[1])
before = engine.generate("hello", sampling=one)
faulthandler.dump_traceback_later(300, exit=True)  # torch's import may take minutes where others compute
status = open("/proc/self/status").read()
used = int(status.split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (32 << 20), used + (32 << 20)))
long = " ".join(f"word{n}" for n in range(int(sys.argv[2])))
try:
    engine.generate(long, sampling=one)
except OutOfMemoryError as error:
    print("told:", error)
print("same:", engine.generate("hello", sampling=one) == before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA of Linux")
def test_an_allocation_that_the_system_refuses(tmp_path: Path) -> None:
    from tests.toy import write_llama

    wide = {"max_position_embeddings": 16384, "intermediate_size": 16384, "num_hidden_layers": 1}
    folder = write_llama(tmp_path / "wide", **wide)
    command = [sys.executable, "-c", _LIMITED, str(folder), "350"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    told, same = done.stdout.splitlines()
    assert told.startswith("told: the memory of cpu did not suffice in the middle of an answer (the prompt of ")
    assert "context_window (it is 16384)" in told
    assert same == "same: True"
