"""The benchmark of tool calls judges and counts as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.tool_cases import CASES, INVOICE, Case, judge
from benchmarks.tool_ways import Measured, ask_in_words, ask_ours, ask_step_by_step
from benchmarks.tools import format_table, summarise
from minicpm_core import Engine, Sampling, load
from tests.toy import write_llama

ONE = next(case for case in CASES if case.name == "one tool")
STRUCTURED = next(case for case in CASES if case.schema)
GREEDY = Sampling(0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, max_new_tokens=60)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = write_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2048)
    with load(folder) as engine:
        yield engine


@pytest.mark.parametrize(
    ("calls", "called", "valid"),
    [
        ([], False, False),
        ([("calculator", {"expression": "1 + 1"})], True, True),
        ([("calculator", {"expression": 2})], True, False),
        ([("calculator", {"expression": "2", "digits": 3})], True, False),
        ([("calculator", None)], True, False),
        ([("abacus", {"expression": "2"})], True, False),
        ([("calculator", {"expression": "2"}), ("calculator", {})], True, False),
    ],
)
def test_calls_are_judged_by_their_schemas(calls: Any, called: bool, valid: bool) -> None:
    verdict = judge(ONE, calls, "")
    assert (verdict.called, verdict.valid) == (called, valid)


@pytest.mark.parametrize(
    ("text", "valid"), [("", False), ("no", False), ("{}", False), ("[" * 9, False), ("null", False)]
)
def test_answers_are_judged_by_their_schema(text: str, valid: bool) -> None:
    assert judge(STRUCTURED, (), text).valid is valid
    whole = {"number": "7", "total": 1.5, "currency": "EUR", "paid": False, "lines": []}
    assert judge(Case("", (), schema=INVOICE), (), json.dumps(whole)).valid


def test_every_case_has_tools_or_a_schema() -> None:
    assert len({case.name for case in CASES}) == len(CASES) == 6
    assert all(bool(case.tools) != bool(case.schema) and len(case.requests) > 1 for case in CASES)


@pytest.mark.parametrize("case", [ONE, STRUCTURED], ids=lambda case: case.name)
def test_steps_are_counted(engine: Engine, case: Case) -> None:
    free = ask_in_words(engine, case, case.requests[0], GREEDY)
    drawn = ask_step_by_step(engine, case, case.requests[0], GREEDY)
    forced = ask_ours(engine, case, case.requests[0], GREEDY)
    assert free.steps == free.tokens  # the prompt's step gives the first token
    assert drawn.steps == drawn.tokens
    assert 0 < forced.steps < forced.tokens
    assert all(answer.seconds > 0 and answer.own_seconds > 0 for answer in (free, drawn, forced))
    assert judge(case, forced.calls, forced.text).called
    assert "forward" not in vars(engine.model)


def test_prompting_alone_reads_calls_from_the_text(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = engine.generate
    seen: list[Any] = []

    def write(prompt: Any, **options: Any) -> Any:
        seen.append(prompt)
        answer = generate(prompt, **options)
        text = "Well: " + engine.family.dialect.write_call("calculator", {"expression": "1 + 1"})
        return type(answer)(text, finish_reason="stop", usage=answer.usage)

    monkeypatch.setattr(engine, "generate", write)
    answer = ask_in_words(engine, ONE, ONE.requests[0], GREEDY)
    assert answer.calls == [("calculator", {"expression": "1 + 1"})]
    assert answer.text == "Well: "
    (prompt,) = seen
    assert ONE.requests[0] in prompt
    assert "Evaluate an arithmetic expression." in prompt


def test_a_row_of_the_table() -> None:
    good = Measured([("calculator", {"expression": "1"})], tokens=10, steps=4, seconds=0.05, own_seconds=0.02)
    row = summarise(ONE, [good, good, Measured(tokens=20, steps=20, seconds=0.2), Measured(refused="no")])
    assert row == {
        "answers": 3,
        "refused": 1,
        "called": 2,
        "valid": 2,
        "tokens": pytest.approx(40 / 3),
        "steps": pytest.approx(28 / 3),
        "ms_per_token": pytest.approx(5.0),
        "ms_beside_model": pytest.approx(2.0),
    }
    rows = [{"case": "one tool", "way": way, **row, "grammar_ms": None} for way in ("a", "b")]
    first, second = format_table(rows).splitlines()[1:]
    assert first.split() == ["one", "tool", "a", "3", "1", "2", "2", "13.33", "9.33", "5.00", "2.00", "-"]
    assert second.split()[0] == "b"
    assert summarise(ONE, [Measured(refused="no")])["ms_per_token"] is None
