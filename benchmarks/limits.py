"""A limit on a process's memory that the operating system enforces. Linux only."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path


def enforce_limit(size: int) -> str:
    """Let this process have no more than so many bytes, and return what enforces it.

    A memory control group (cgroup v2) counts all memory, and its kernel kills the process that exceeds it. Where none
    can be made (another version, no rights), RLIMIT_DATA counts the process's own memory, written or not, and refuses
    the allocation that exceeds it, which ends the process; pages of files are not counted, since the kernel can drop
    them. RLIMIT_AS would count every address that is set aside, such as a mapped file or an allocator's reserve.

    Args:
        size: bytes.
    """
    if reason := _enter_group(size):
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        return f"RLIMIT_DATA ({reason})"
    return "memory control group"


def peak() -> int:
    """Return the most bytes that were resident in this process at once, files included (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _enter_group(size: int) -> str:
    """Move this process into a group of its own below the present one; return why that is not possible, or ""."""
    own = Path("/proc/self/cgroup").read_text().splitlines()
    path = next((line.removeprefix("0::") for line in own if line.startswith("0::")), None)
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    if path is None or root is None:
        return "no cgroup v2 here"
    parent = Path(root, path.lstrip("/"))
    try:
        if "memory" not in (parent / "cgroup.controllers").read_text().split():
            return "cgroup v2 has no memory controller here"
        group = parent / f"benchmark-{os.getpid()}"
        group.mkdir()
        try:
            (group / "memory.max").write_text(str(size))
            (group / "memory.swap.max").write_text("0")
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            group.rmdir()
            raise
    except OSError as error:
        return f"no control group can be made here: {error.strerror}"
    return ""


def leave_groups(pid: int) -> None:
    """Remove the group of a process that has ended."""
    for found in Path("/sys/fs/cgroup").glob(f"**/benchmark-{pid}"):
        with suppress(OSError):
            found.rmdir()
