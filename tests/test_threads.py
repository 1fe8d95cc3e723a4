"""Threads: those of the container, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicpm_core import threads


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "1:cpu:/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, 64),
    ],
)
def test_a_quota_limits_the_cpus(
    files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_affinity", lambda: set(range(64)))
    assert threads.usable_cpus(write(tmp_path, files)) == cpus


def test_torchs_own_number_is_lowered_and_the_users_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 2)
    for name in threads._SET_BY_USERS:
        monkeypatch.delenv(name, raising=False)
    threads.fit_threads()
    assert chosen == [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    threads.fit_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    threads.fit_threads()
    assert chosen == [2]


def test_how_threads_wait_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    threads.wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    threads.wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    threads.wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


_TEAMS = """
import os, threading, torch
from minicpm_core.threads import release_team
from minicpm_core.worker import Worker

def count():
    return len(os.listdir("/proc/self/task"))

def add():
    return torch.add(*torch.ones(2, 10**6)).sum()

torch.set_num_threads(3)
alone = count()
add()
with_team = count()
seen = list(Worker("toy").stream(lambda stop: iter([add() and count()])))[0]
print(with_team - alone, seen - alone)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc, which Linux has")
def test_the_callers_threads_end_when_the_models_compute() -> None:
    import torch

    if not (Path(torch.__file__).parent / "lib" / "libgomp.so.1").is_file():
        pytest.skip("this torch computes with another runtime than libgomp")
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", _TEAMS], env=env, capture_output=True, text=True, check=True)
    # two threads beside the caller; then those of the model's thread, and that thread itself
    assert done.stdout.split() == ["2", "3"]
