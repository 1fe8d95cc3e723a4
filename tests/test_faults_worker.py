"""Memory that runs out in the worker itself: whoever waits for an answer is told, and none waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from minicpm_core import OutOfMemoryError
from minicpm_core import worker as module
from minicpm_core.handover import Stop
from minicpm_core.worker import Worker

PATIENCE = 20.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("x")
    yield worker
    worker.close()


def ask(worker: Worker, items: str = "ab") -> list[str]:
    return list(worker.stream(lambda stop: iter(items), Stop(PATIENCE)))


def in_worker() -> bool:
    return threading.current_thread().name.startswith("minicpm")


def test_a_failure_while_a_request_is_ended_is_told(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        if in_worker():
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(module, "release_team", fail)
        for _ in range(3):
            with pytest.raises(OutOfMemoryError, match="did not suffice for an answer of x; nor to tell where"):
                ask(worker)
    assert ask(worker) == ["a", "b"]


@pytest.mark.parametrize("failures", [1, 4])
def test_an_end_that_cannot_be_delivered_is_delivered_later(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    left = [failures]

    class Narrow:
        def __init__(self) -> None:
            self._items: SimpleQueue[Any] = SimpleQueue()
            self.get = self._items.get

        def put(self, item: Any) -> None:
            if item not in ("a", "b") and left[0]:
                left[0] -= 1
                raise MemoryError
            self._items.put(item)

    with monkeypatch.context() as patch:
        patch.setattr(module, "SimpleQueue", Narrow)
        with pytest.raises(OutOfMemoryError, match="did not suffice for an answer of x"):
            ask(worker)
        assert left == [0]
        assert ask(worker) == ["a", "b"]


def test_a_thread_that_cannot_wait_is_replaced(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(timeout: float | None = None) -> bool:
        raise MemoryError

    assert ask(worker) == ["a", "b"]
    first = worker._thread
    assert first is not None
    with monkeypatch.context() as patch:
        patch.setattr(worker._changed, "wait", fail)
        for _ in range(20):  # each thread ends behind its request, and the next request comes at any moment of that
            assert ask(worker) == ["a", "b"]
        first.join(PATIENCE)
        assert not first.is_alive()
    assert ask(worker) == ["a", "b"]
