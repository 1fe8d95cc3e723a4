"""The queue in front of a model: first come first served, bounded, with a time limit, through every class."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from langchain_minicpm import ChatMiniCPM
from langchain_minicpm import MiniCPMLLM as CompletionModel
from llamaindex_minicpm import MiniCPM
from minicpm_core import AnswerTimeoutError, Engine, QueueFullError, Sampling
from minicpm_core.handover import Stop
from minicpm_core.worker import MAX_WAITING, Worker

HELLO = [{"role": "user", "content": "hello"}]
SHORT = Sampling(temperature=0, max_new_tokens=2)
LONG = Sampling(temperature=0, max_new_tokens=400)


@pytest.fixture
def engine(toy: Path) -> Iterator[Engine]:
    with minicpm_core.load(toy, max_waiting=2) as engine:
        yield engine


class Gate:
    """Requests that wait until they are told to go on; `order` is how they were begun."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        self.order: list[int] = []

    def produce(self, number: int) -> Any:
        def run(stop: threading.Event) -> Iterator[int]:
            self.order.append(number)
            self.begun.set()
            while not self.open.is_set() and not stop.is_set():
                time.sleep(0.001)
            yield number

        return run


def start(worker: Worker, gate: Gate, number: int, timeout: float | None = None) -> tuple[threading.Thread, list[Any]]:
    """Ask in a thread; what comes of it is in the list: items, or the error."""
    got: list[Any] = []
    stop = Stop(timeout)

    def ask() -> None:
        try:
            got.extend(worker.stream(gate.produce(number), stop))
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive() and not stop.begun and all(job.stop is not stop for job in list(worker._jobs)):
        time.sleep(0.001)
    if number == 0:
        assert gate.begun.wait(10)
    return thread, got


def test_requests_are_begun_in_the_order_of_their_arrival() -> None:
    worker, gate = Worker("x"), Gate()
    started = [start(worker, gate, number) for number in range(20)]
    gate.open.set()
    for thread, _ in started:
        thread.join(10)
    assert gate.order == list(range(20))
    assert [got for _, got in started] == [[number] for number in range(20)]
    worker.close()


def test_what_comes_beyond_the_queue_is_refused_at_once_and_the_others_are_answered() -> None:
    worker, gate = Worker("x", max_waiting=3), Gate()
    started = [start(worker, gate, number) for number in range(4)]
    with pytest.raises(QueueFullError, match=r"3 requests wait for x already, and max_waiting is 3; .* larger max"):
        next(worker.stream(gate.produce(4)))
    gate.open.set()
    for thread, _ in started:
        thread.join(10)
    assert [got for _, got in started] == [[0], [1], [2], [3]]
    assert list(worker.stream(gate.produce(5))) == [5]  # the place is free again
    worker.close()


def test_requests_that_were_left_give_their_place_in_the_queue_away() -> None:
    worker, gate = Worker("x", max_waiting=1), Gate()
    first, got = start(worker, gate, 0)
    _, late = start(worker, gate, 1, timeout=0.05)
    second, other = start(worker, gate, 2)  # once the place is free
    deadline = time.monotonic() + 10
    while isinstance(other[:1] and other[0], QueueFullError) and time.monotonic() < deadline:
        second, other = start(worker, gate, 2)
    gate.open.set()
    first.join(10)
    second.join(10)
    assert (got, other, gate.order) == ([0], [2], [0, 2])
    assert isinstance(late[0], AnswerTimeoutError)
    worker.close()


def test_no_place_to_wait_means_one_request_at_a_time() -> None:
    worker, gate = Worker("x", max_waiting=0), Gate()
    first, got = start(worker, gate, 0)
    with pytest.raises(QueueFullError, match="0 requests wait for x already, and max_waiting is 0"):
        next(worker.stream(gate.produce(1)))
    gate.open.set()
    first.join(10)
    assert got == [0]
    worker.close()


def test_a_timeout_ends_the_wait_for_a_turn(engine: Engine) -> None:
    running = engine.stream(HELLO, sampling=LONG)
    next(running)
    with pytest.raises(AnswerTimeoutError, match=r"timeout=1e-05 seconds; it was still waiting for its turn"):
        engine.generate(HELLO, sampling=SHORT, timeout=1e-5)
    with pytest.raises(TimeoutError, match="still waiting"):
        asyncio.run(engine.agenerate(HELLO, sampling=SHORT, timeout=1e-5))
    assert sum(running, minicpm_core.Chunk()).usage is not None  # the one before was not disturbed


def test_a_timeout_stops_the_model(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    forward = engine.model.forward

    def slow(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        time.sleep(0.02)
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", slow)
    with pytest.raises(AnswerTimeoutError, match=r"timeout=0.2 seconds; the model was stopped"):
        engine.generate(HELLO, sampling=LONG, timeout=0.2)
    with pytest.raises(AnswerTimeoutError, match="the model was stopped"):
        asyncio.run(engine.agenerate([{"role": "user", "content": "other"}], sampling=LONG, timeout=0.2))
    with pytest.raises(AnswerTimeoutError, match=r"timeout=0.2 seconds"):
        engine.generate_batch([HELLO] * 3, sampling=LONG, timeout=0.2)
    engine.generate(HELLO, sampling=SHORT)
    assert steps < 60


def test_a_reader_who_pauses_does_not_keep_the_model_from_others(engine: Engine) -> None:
    paused = engine.stream(HELLO, sampling=LONG, timeout=0.3)
    got = [next(paused)]
    engine.generate(HELLO, sampling=SHORT)  # runs when the time of the one before is over, or it is done
    try:
        got += paused
    except AnswerTimeoutError:
        pass
    else:
        assert got[-1].usage is not None  # it was quick enough: then it is whole


def test_a_time_that_suffices_changes_nothing(engine: Engine) -> None:
    plain = engine.generate(HELLO, sampling=SHORT)
    assert engine.generate(HELLO, sampling=SHORT, timeout=60) == plain
    assert asyncio.run(engine.agenerate(HELLO, sampling=SHORT, timeout=60)) == plain
    assert engine.generate_batch([HELLO, HELLO], sampling=SHORT, timeout=60) == [plain, plain]


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_no_time_is_refused(engine: Engine, timeout: float) -> None:
    with pytest.raises(ValueError, match="accepted: seconds above 0, or None"):
        engine.generate(HELLO, sampling=SHORT, timeout=timeout)


@pytest.mark.parametrize("value", [-1, True])
def test_a_queue_of_no_size_is_refused(toy: Path, value: Any) -> None:
    with pytest.raises(ValueError, match=r"max_waiting is .*; accepted: 0 \(nobody waits\) or more"):
        minicpm_core.load(toy, max_waiting=value)


def test_the_queue_is_the_servers_behind_a_url() -> None:
    with pytest.raises(ValueError, match="max_waiting: the weights are loaded behind base_url"):
        minicpm_core.load("m", base_url="http://localhost:1/v1", max_waiting=3)


def test_an_engine_has_a_bound_by_itself(toy: Path) -> None:
    with minicpm_core.load(toy) as engine:
        assert engine._worker.max_waiting == MAX_WAITING == 128


CLASSES = {
    "ChatMiniCPM": (ChatMiniCPM, "invoke", "ainvoke"),
    "MiniCPMLLM": (CompletionModel, "invoke", "ainvoke"),
    "MiniCPM": (MiniCPM, "complete", "acomplete"),
}


def test_a_request_gives_its_place_away_before_its_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicpm_core.worker.release_team", lambda: time.sleep(0.01))
    worker = Worker("x", max_waiting=0)
    assert [list(worker.stream(lambda stop: iter("ab"))) for _ in range(5)] == [["a", "b"]] * 5
    worker.close()


@pytest.mark.parametrize("name", CLASSES)
def test_both_frameworks_wait_within_their_timeout_and_tell_a_full_queue(toy: Path, name: str) -> None:
    kind, ask, aask = CLASSES[name]
    with minicpm_core.load(toy, max_waiting=0) as engine:
        model = kind(engine=engine, timeout=30, max_tokens=2)
        assert getattr(model, ask)("hello")
        running = engine.stream(HELLO, sampling=LONG)
        next(running)
        with pytest.raises(QueueFullError, match="max_waiting is 0"):
            getattr(model, ask)("hello")
        with pytest.raises(QueueFullError, match="max_waiting is 0"):
            asyncio.run(getattr(model, aask)("hello"))
        engine._worker.max_waiting = 5
        with pytest.raises(AnswerTimeoutError, match="timeout=1e-05 seconds"):
            getattr(kind(engine=engine, timeout=1e-5), ask)("hello")
        with pytest.raises(AnswerTimeoutError, match="timeout=1e-05 seconds"):
            asyncio.run(getattr(kind(engine=engine, timeout=1e-5), aask)("hello"))
        with pytest.raises(AnswerTimeoutError, match="timeout=1e-05 seconds"):
            getattr(model, ask)("hello", timeout=1e-5)
        running.close()  # type: ignore[attr-defined]
        assert getattr(model, ask)("hello")


@pytest.mark.parametrize("kind", [ChatMiniCPM, CompletionModel, MiniCPM])
def test_both_frameworks_take_the_size_of_the_queue(toy: Path, kind: Any) -> None:
    model = kind(model=str(toy), max_waiting=7)
    engine = model.load_engine()
    assert engine._worker.max_waiting == 7
    engine.close()
    with pytest.raises(ValueError, match="max_waiting"):
        kind(model=str(toy), max_waiting=-1)
