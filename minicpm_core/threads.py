"""Threads for the CPU: no more than the cores that the process may use.

torch starts a thread per core of the machine, also where a container may use two of sixty-four; they then wait for one
another most of the time. How waiting threads wait is fixed when torch is imported: they spin for milliseconds, which
takes the double time where other programs use the same cores, or sleep at once (OMP_WAIT_POLICY=PASSIVE), which costs a
quarter where a model's operations are short. The `minicpm` command lets them spin for some microseconds and then sleep;
a library must not, since it would reach the whole program.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

_SET_BY_USERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
_WAIT_POLICY = "OMP_WAIT_POLICY"
_SPIN_COUNT = "GOMP_SPINCOUNT"
_SPINS = 1_000
_SOFT = 1
"""omp_pause_soft: what is released is made anew when it is needed."""
_KEPT = 31 * 2**20
"""Bytes of a block whose release lets glibc keep blocks up to that size; 32 MiB is its own upper bound."""


def fit_threads() -> None:
    """Lower torch's number of threads to the cores available; what the user has set is left alone."""
    import torch

    if any(name in os.environ for name in _SET_BY_USERS):
        return
    cores, now = usable_cpus(), torch.get_num_threads()
    machine = os.cpu_count() or now
    if cores < now and now in (machine, machine // 2, len(_affinity())):  # torch's own choice, not another's
        torch.set_num_threads(cores)


def wait_briefly() -> None:
    """Let torch's threads sleep when they have waited some microseconds; has an effect before torch is imported.

    What the user has chosen (OMP_WAIT_POLICY, GOMP_SPINCOUNT) is left alone.
    """
    if _WAIT_POLICY not in os.environ:
        os.environ.setdefault(_SPIN_COUNT, str(_SPINS))


def release_team() -> None:
    """End the threads that wait for this thread's next operation; they start again with it.

    libgomp keeps a team for each thread that has computed, counts all of them against the cores, and beyond that lets
    every team sleep at each step. A caller's team that idles while the model's thread computes would so cost a third.
    """
    if "torch" in sys.modules and (pause := _pause()) is not None:
        pause(_SOFT)


@cache
def _pause() -> Any:
    """Return libgomp's `omp_pause_resource_all`, None where torch computes with another runtime."""
    import torch

    file = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    try:
        return ctypes.CDLL(str(file)).omp_pause_resource_all
    except (OSError, AttributeError):
        return None


def keep_freed_memory() -> None:
    """Let glibc give the memory of released tensors to the next ones, instead of asking the system for zeroed pages.

    It does so by itself for blocks no larger than the largest that was ever released, which is what happens here. A
    prompt of 1,000 tokens otherwise has 200,000 page faults, an eighth of its time.
    """
    import torch

    torch.empty(_KEPT, dtype=torch.uint8)


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the CPUs that this process may use: those of its affinity, within the quota of its control group."""
    quota = _quota(root)
    return max(1, min(len(_affinity()), math.ceil(quota) if quota else 10**6))


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quota(root: Path) -> float | None:
    """Return the CPUs' worth of time that control groups (version 2, else 1) allow, None where they do not limit it."""
    found = []
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        place = next((Path(line[3:].lstrip("/")) for line in groups if line.startswith("0::")), Path())
        for folder in (place, *place.parents):
            file = root / "sys/fs/cgroup" / folder / "cpu.max"
            if file.is_file():
                quota, period = file.read_text().split()[:2]
                found += [int(quota) / int(period)] if quota != "max" else []
        first = root / "sys/fs/cgroup/cpu"
        if (first / "cpu.cfs_quota_us").is_file():
            quota, period = ((first / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
            found += [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return min(found, default=None)
