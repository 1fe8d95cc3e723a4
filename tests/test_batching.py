"""Several prompts in one padded batch give the answers of single calls."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minicpm_core import Chunk, Engine, Sampling, load
from minicpm_core.batching import group_requests
from tests.toy_families import CONFIGS, write_family

GREEDY = Sampling(temperature=0, repetition_penalty=2.0, max_new_tokens=12)
TEXTS = ["Hello", "What is the name of the city? " * 3, "保修期为两年", "The quick brown fox", "a " * 40]
PROMPTS = [[{"role": "user", "content": text}] for text in TEXTS]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}, "required": ["a", "n"]}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(write_family(tmp_path_factory.mktemp("batch"), "minicpm5"))


def values(answers: list[Chunk]) -> list[list[float]]:
    return [[entry.logprob for entry in answer.logprobs] for answer in answers]


def assert_equal_alone_and_together(engine: Engine) -> None:
    single = [engine.generate(prompt, sampling=GREEDY, logprobs=0) for prompt in PROMPTS]
    batch = engine.generate_batch(PROMPTS, sampling=GREEDY, logprobs=0)
    assert [answer.content for answer in batch] == [answer.content for answer in single]
    assert [answer.usage for answer in batch] == [answer.usage for answer in single]
    for ours, theirs in zip(values(batch), values(single), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    firsts = sorted(row[0] for row in values(single))
    assert min(b - a for a, b in itertools.pairwise(firsts)) > 1e-4  # so that no prompt passes for another


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_greedy_answers_are_those_of_single_calls(tmp_path: Path, name: str) -> None:
    with load(write_family(tmp_path, name, initializer_range=0.5)) as engine:
        assert_equal_alone_and_together(engine)


def test_the_number_of_families() -> None:
    assert len(CONFIGS) == 9


def test_a_batch_takes_fewer_steps_than_its_answers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    forward = engine.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        widths.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", counted)
    engine.generate_batch(PROMPTS, sampling=GREEDY)
    assert max(widths) == len(PROMPTS)
    assert len(widths) <= GREEDY.max_new_tokens + len(PROMPTS)
    widths.clear()
    engine.generate_batch(PROMPTS, sampling=GREEDY, batch_size=2)
    assert max(widths) == 2


def test_rows_leave_the_batch_when_they_are_finished(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    single = [engine.generate(prompt, sampling=GREEDY) for prompt in PROMPTS]
    stop = [answer.content[2:4] for answer in single[:2]]
    expected = [engine.generate(prompt, sampling=GREEDY, stop=stop) for prompt in PROMPTS]
    assert len({answer.usage.completion_tokens for answer in expected if answer.usage}) > 1
    assert engine.generate_batch(PROMPTS, sampling=GREEDY, stop=stop) == expected


def test_seeds_and_schemas_hold_in_a_batch(engine: Engine) -> None:
    sampling = Sampling(temperature=1.0, seed=3, max_new_tokens=80)
    expected = [engine.generate(prompt, sampling=sampling, response_schema=SCHEMA) for prompt in PROMPTS]
    assert engine.generate_batch(PROMPTS, sampling=sampling, response_schema=SCHEMA) == expected
    assert all(answer.content.startswith('{"a": "') for answer in expected)


def test_the_async_twin_gives_the_same(engine: Engine) -> None:
    expected = engine.generate_batch(PROMPTS, sampling=GREEDY)
    assert asyncio.run(engine.agenerate_batch(PROMPTS, sampling=GREEDY)) == expected


def test_answers_that_would_not_fit_into_memory_together_run_apart(engine: Engine) -> None:
    requests = [engine.prepare(prompt, sampling=GREEDY) for prompt in PROMPTS]
    memory = engine._memory
    together = [sorted(group) for group in group_requests(requests, 8, memory.cache_tokens)]
    assert together == [[0, 1, 2, 3, 4]]
    apart = list(group_requests(requests, 8, replace(memory, limit=memory.total).cache_tokens))
    assert sorted(n for group in apart for n in group) == [0, 1, 2, 3, 4]
    assert len(apart) > 1


def test_what_is_wrong_is_told_before_anything_runs(engine: Engine) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        engine.generate_batch(PROMPTS, batch_size=0)
    with pytest.raises(ValueError, match="context window"):
        engine.generate_batch([*PROMPTS, [{"role": "user", "content": "word " * 400}]])
    assert engine.generate_batch([]) == []
