"""Where a model runs, in which number format, and the memory there is."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from minicpm_core.checkpoints import Checkpoint


def choose_device(device: str) -> str:
    """Return "cuda" where there is a GPU for "auto", else "cpu"; a named device is checked."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f'device is {device!r}; accepted: "auto", "cpu", "cuda", "cuda:N"')
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device is {device!r}, but torch sees no CUDA device here; use device="cpu" or "auto"')
    return device


def choose_dtype(dtype: str, checkpoint: Checkpoint, device: str) -> Any:
    """Return the torch dtype; "auto" is the stored one, but on the CPU float32 for small models and no float16."""
    import torch

    names = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    stored = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "bfloat16")
    name = stored.removeprefix("torch.") if dtype == "auto" else dtype
    if name not in names:
        raise ValueError(f"dtype is {name!r}; accepted: auto, {', '.join(names)}")
    small = sum(f.stat().st_size for f in checkpoint.weight_files) < 200_000_000
    if dtype == "auto" and device == "cpu" and (small or name == "float16"):
        return torch.float32 if small else torch.bfloat16
    return names[name]


def available_memory(device: str) -> int:
    """Return the bytes that are free now on `device` ("cpu" or "cuda...")."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if match:
            return int(match[1]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 8 * 2**30


def peak_memory(device: Any) -> int | None:
    """Return the most bytes that this process has held at once, on CUDA those allocated there; None if unknown."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:  # not ru_maxrss, which starts with that of the parent
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def limit_allocator(device: str, size: int) -> None:
    """Let torch's allocator give out no more than `size` bytes on a GPU; the CPU has no such limit.

    The limit holds for the whole process, and for one GPU: what another model there takes counts too.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        size: bytes.
    """
    if not device.startswith("cuda"):
        return
    import torch

    place = torch.device(device)
    index = torch.cuda.current_device() if place.index is None else place.index
    whole = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(max(size, 0) / whole, 1.0), index)
