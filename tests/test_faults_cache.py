"""The cache of int4 copies on disks that fail, and with clocks that jump: the model loads all the same."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core import Sampling
from minicpm_core.int4 import cache, model, writing
from tests.test_faults_index import mounted
from tests.toy import write_llama

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
GREEDY = Sampling(temperature=0, max_new_tokens=8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("bitsandbytes")
    folder = write_llama(tmp_path_factory.mktemp("cached") / "model", hidden_size=256, intermediate_size=512)
    old = time.time() - 60  # so that its digest is remembered
    for file in folder.iterdir():
        os.utime(file, (old, old))
    return folder


@pytest.fixture(autouse=True)
def _cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_WORTH", 0)
    monkeypatch.setattr(cache, "_MARGIN", 0)


def answer(checkpoint: Path) -> str:
    with minicpm_core.load(checkpoint, quantization="int4") as engine:
        return engine.generate("hello", sampling=GREEDY).content


def copies(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".digest")


def test_a_disk_that_fills_while_a_copy_is_written_keeps_no_half_of_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MINICPM_CACHE", str(tmp_path / "sound"))
    expected = answer(checkpoint)
    [copy] = copies(tmp_path / "sound")
    assert copy.endswith(".safetensors")
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("MINICPM_CACHE", str(disk))
    with mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", at=disk):
        with caplog.at_level(logging.WARNING, logger="minicpm_core.int4"):
            assert answer(checkpoint) == expected
        assert "is not kept" in caplog.text  # known before
        assert copies(disk) == []
        caplog.clear()
        monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2**40}))
        with caplog.at_level(logging.WARNING, logger="minicpm_core.int4"):
            assert answer(checkpoint) == expected
        assert "no int4 copy is kept" in caplog.text  # found out while writing
        assert os.strerror(errno.ENOSPC) in caplog.text
        assert copies(disk) == []


def test_a_disk_that_fails_at_the_last_write_keeps_no_half_of_a_copy(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICPM_CACHE", str(tmp_path))

    def fail(self: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(writing.TensorFile, "close", fail)
        expected = answer(checkpoint)
    assert copies(tmp_path) == []
    assert answer(checkpoint) == expected
    assert len(copies(tmp_path)) == 1


def test_a_cache_that_is_read_only_is_read_and_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "cache"
    place.mkdir()
    monkeypatch.setenv("MINICPM_CACHE", str(place))
    with mounted("-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", at=place):
        with caplog.at_level(logging.WARNING, logger="minicpm_core.int4"):
            expected = answer(checkpoint)
        assert os.strerror(errno.EROFS) in caplog.text
    assert answer(checkpoint) == expected
    [copy] = copies(place)
    with mounted("--bind", str(place), at=place):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        assert answer(checkpoint) == expected
        assert copies(place) == [copy]


@pytest.mark.parametrize("moved", [-400 * 86400.0, 400 * 86400.0])
def test_what_crashes_left_is_removed_whatever_the_clock_says(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: float
) -> None:
    monkeypatch.setenv("MINICPM_CACHE", str(tmp_path))
    (tmp_path / "int4").mkdir()
    left, young = tmp_path / "int4" / ".crashed.tmp", tmp_path / "int4" / ".at-work.tmp"
    for file in (left, young):
        file.write_bytes(b"x")
    os.utime(left, (time.time() + moved, time.time() + moved))
    expected = answer(checkpoint)
    assert (left.exists(), young.exists()) == (False, True)
    assert answer(checkpoint) == expected


def test_a_load_that_is_given_up_does_not_read_the_weights_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"x" * 2**22)
    parts: list[int] = []
    sha256 = hashlib.sha256

    class Slow:
        def __init__(self, *data: bytes) -> None:
            self.inner = sha256(*data)

        def update(self, data: Any) -> None:
            parts.append(len(data))
            reading.set()
            goes_on.wait(10)
            self.inner.update(data)

        def hexdigest(self) -> str:
            return self.inner.hexdigest()

    reading, goes_on = threading.Event(), threading.Event()
    slot = cache.Slot(tmp_path / "cache", (weights,), {})
    monkeypatch.setattr(hashlib, "sha256", Slow)
    assert slot.start(10) is not None
    assert reading.wait(10)
    slot.abandon()
    goes_on.set()
    assert slot._name_later is not None
    with pytest.raises(InterruptedError, match="was not read to its end"):
        slot._name_later.result(10)
    assert parts == [2**18]  # of sixteen
