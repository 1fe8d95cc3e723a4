"""Threads: those of the container, unless the user has chosen."""

from __future__ import annotations

import os
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
    monkeypatch.setenv(threads.WAIT_POLICY, "ACTIVE")
    threads.wait_passively()
    assert os.environ[threads.WAIT_POLICY] == "ACTIVE"
    monkeypatch.delenv(threads.WAIT_POLICY)
    threads.wait_passively()
    assert os.environ[threads.WAIT_POLICY] == "PASSIVE"
