"""Errors of load and faults, each a kind of the built-in one that programs catch already."""

from __future__ import annotations

_SIGNS = {
    "out of memory": "torch's allocators for CUDA, ROCm, XPU and MPS, and CUDA itself",
    "out_of_memory": "CUDA's driver (CUDA_ERROR_OUT_OF_MEMORY), oneDNN",
    "outofmemory": "HIP (hipErrorOutOfMemory)",
    "out_of_device_memory": "Level Zero, of Intel's GPUs",
    "out_of_host_memory": "the same",
    "_alloc_failed": "cuBLAS, cuDNN, cuSPARSE, cuSOLVER and cuFFT, whose workspaces torch's allocator does not count",
    "_allocation_failed": "cuDNN from version 9 on (..._HOST_ALLOCATION_FAILED, ..._DEVICE_ALLOCATION_FAILED)",
    "invalid buffer size": "MPS, of more than Metal gives at once",
    "can't allocate memory": "torch on the CPU",
    "cannot allocate memory": "the system (ENOMEM), where a file is mapped",
    "not enough memory": "torch on the CPU of Windows",
    "bad_alloc": "C++",
    "failed to allocate": "llama.cpp",
}
"""Parts of messages, in lower case, and who writes them; torch raises most of it as RuntimeError."""


class QueueFullError(RuntimeError):
    """As many requests wait for the engine as `max_waiting` allows; this one was not begun."""


class AnswerTimeoutError(TimeoutError):
    """An answer was not complete within `timeout`, the wait for its turn included; the model was stopped."""


class OutOfMemoryError(MemoryError):
    """The memory did not suffice in the middle of an answer; its memory was freed, and the engine goes on."""


class IndexDamagedError(ValueError):
    """Files of an index are damaged or missing; `minicpm doctor --index DIR --repair` mends it."""


class IndexStorageError(OSError):
    """The disk of an index refuses to write: it is full, read-only, or its folder is gone."""


class IndexLockedError(RuntimeError):
    """Another process holds the index."""


def is_exhaustion(error: BaseException) -> bool:
    """Tell whether an error says that there was no more memory."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)
