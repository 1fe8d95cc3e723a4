"""The soak benchmark in seconds instead of minutes; and that it would see what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import soak
from benchmarks.soak_cases import begins, make_cases
from benchmarks.soak_record import Record
from minicpm_core import Chunk, Engine, ToolCall
from minicpm_core.worker import Worker


def test_thirty_two_callers_get_their_own_answers_in_their_turn() -> None:
    threads = threading.active_count()
    row = soak.run(5.0, most=6)
    assert row["examples"] == []
    assert (row["mixed_up"], row["errors"], row["overtaken"], row["stuck_callers"]) == (0, 0, 0, 0)
    assert row["fewest_answers_of_a_caller"] >= 1
    assert row["most_answers_of_a_caller"] - row["fewest_answers_of_a_caller"] <= 3  # each waits for all others
    assert {kind.split(", ")[0] for kind in row["kinds"]} == {"engine", "langchain", "llamaindex"}
    assert {kind.split(", ")[1] for kind in row["kinds"]} == {"threads", "asyncio"}
    assert row["left_early"] > 0
    assert row["idle_at_the_end"]
    assert row["memory_peak_mib"] - row["memory_first_mib"] < 100
    assert threading.active_count() <= threads


def test_a_queue_that_is_not_fair_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = Worker._submit

    def push_in(self: Worker, job: Any) -> None:
        submit(self, job)
        with self._changed:
            self._jobs.rotate(1)  # before all others

    monkeypatch.setattr(Worker, "_submit", push_in)
    row = soak.run(1.5, callers=8, most=4)
    assert row["overtaken"] > 0
    assert row["mixed_up"] == 0
    assert not all(bar.met for bar in soak.show(row)[1])


def test_answers_that_are_mixed_up_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = Engine._generate
    requests, alone = list[Any](), len(make_cases(4))

    def mix(self: Engine, request: Any, cancelled: Any) -> Iterator[Chunk]:
        requests.append(request)
        others = [other for other in requests[-30:] if other.constraint is None]
        return generate(self, others[0] if len(requests) > alone and others else request, cancelled)

    monkeypatch.setattr(Engine, "_generate", mix)
    row = soak.run(1.5, callers=8, most=4)
    assert row["mixed_up"] > 0
    assert row["examples"]


def test_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = Engine._generate
    count, alone = 0, len(make_cases(4))

    def fail(self: Engine, request: Any, cancelled: Any) -> Iterator[Chunk]:
        nonlocal count
        count += 1
        if count == alone + 5:
            raise RuntimeError("the fifth")
        return generate(self, request, cancelled)

    monkeypatch.setattr(Engine, "_generate", fail)
    row = soak.run(1.5, callers=8, most=4)
    assert row["errors"] == 1
    assert any("RuntimeError: the fifth" in example for example in row["examples"])


def test_the_beginning_of_an_answer_is_told_from_another() -> None:
    whole = Chunk("The lamp", tool_calls=(ToolCall("a", "add", {"a": 1}, '{"a": 1}'),))
    assert begins(Chunk("The"), whole)
    assert begins(Chunk("The lamp", tool_calls=(ToolCall("b", "add", None, '{"a'),)), whole)
    assert not begins(Chunk("A lamp"), whole)
    assert not begins(Chunk("The lamp", tool_calls=(ToolCall("b", "get", None, '{"a'),)), whole)
    assert not begins(whole, Chunk("The lamp"))


def test_the_slope_of_the_memory_leaves_the_beginning_out() -> None:
    rising = Record(memory=[(float(n), 100.0 + n / 60) for n in range(100)])
    assert rising.slope() == pytest.approx(1.0)
    steady = Record(memory=[(float(n), 100.0 if n < 10 else 200.0) for n in range(100)])
    assert steady.slope() == pytest.approx(0.0)
    assert Record().slope() == 0.0


def test_requests_that_were_left_while_they_waited_do_not_count_as_overtaken() -> None:
    assert Record(arrived=[0, 1, 2, 3], begun=[0, 2, 3]).overtaken() == 0
    assert Record(arrived=[0, 1, 2, 3], begun=[0, 2, 1, 3]).overtaken() == 2
