"""Fixtures that all tests share: tiny random checkpoints, and no hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for models this small, threads wait more than they work
os.environ["ANONYMIZED_TELEMETRY"] = "False"

from tests.toy import write_llama


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MiniCPM5-like checkpoint folder with a context window of 512 tokens."""
    return write_llama(tmp_path_factory.mktemp("toy") / "minicpm5-toy")


@pytest.fixture(scope="session", autouse=True)
def _free_engines() -> Iterator[None]:
    yield
    from minicpm_core import close_all

    close_all()
