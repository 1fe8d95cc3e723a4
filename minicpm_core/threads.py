"""Threads for the CPU: no more than the cores that the process may use.

torch starts a thread per core of the machine, also where a container may use two of sixty-four; they then wait for one
another most of the time. How waiting threads wait is fixed when torch is imported: OMP_WAIT_POLICY=PASSIVE before that
lets them sleep instead of spin, which is what other load on the same cores needs. The `minicpm` command sets it; a
library must not, since it would reach the whole program.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_SET_BY_USERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
WAIT_POLICY = "OMP_WAIT_POLICY"
_SPIN_COUNT = "GOMP_SPINCOUNT"


def fit_threads() -> None:
    """Lower torch's number of threads to the cores available; what the user has set is left alone."""
    import torch

    if any(name in os.environ for name in _SET_BY_USERS):
        return
    cores, now = usable_cpus(), torch.get_num_threads()
    machine = os.cpu_count() or now
    if cores < now and now in (machine, machine // 2, len(_affinity())):  # torch's own choice, not another's
        torch.set_num_threads(cores)


def wait_passively() -> None:
    """Let torch's threads sleep while they wait, unless the user has chosen; has an effect before torch is imported."""
    if _SPIN_COUNT not in os.environ:
        os.environ.setdefault(WAIT_POLICY, "PASSIVE")


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
