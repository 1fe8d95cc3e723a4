"""The engine's promises: exact text, exact stops, exact counts, and many callers at once."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core import Chunk, Engine, Sampling
from minicpm_core.sampler import Sampler

GREEDY = Sampling(temperature=0, max_new_tokens=48)
HELLO = [{"role": "user", "content": "hello 你好"}]


@pytest.fixture(scope="module")
def engine(toy: Path) -> Iterator[Engine]:
    with minicpm_core.load(toy) as engine:
        yield engine


def test_a_prompt_beyond_the_window_is_told_once(
    toy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with minicpm_core.load(toy) as fresh:
        fresh.tokenizer.model_max_length = 512
        for prompt in ("a " * 600, [{"role": "user", "content": "a " * 600}]):
            with pytest.raises(ValueError, match="the prompt has"):
                fresh.generate(prompt)
    assert caplog.records == []  # transformers warns of indexing errors that do not happen


def test_stream_adds_up_to_generate_and_to_the_async_twins(engine: Engine) -> None:
    whole = engine.generate(HELLO, sampling=GREEDY)
    pieces = list(engine.stream(HELLO, sampling=GREEDY))
    assert sum(pieces, Chunk()) == whole
    assert len(pieces) > 10
    assert all(piece.usage is None and piece.finish_reason is None for piece in pieces[:-1])
    assert asyncio.run(engine.agenerate(HELLO, sampling=GREEDY)) == whole


def test_only_new_text_is_returned_and_it_is_what_transformers_generates(engine: Engine) -> None:
    import torch

    ids = torch.tensor([engine.encode(HELLO)])
    out = engine.model.generate(ids, max_new_tokens=48, do_sample=False, eos_token_id=None, pad_token_id=1)
    expected = engine.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    answer = engine.generate(HELLO, sampling=GREEDY)
    assert answer.content == expected
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (ids.shape[1], 48)
    assert answer.finish_reason == "length"


def test_a_stop_text_of_several_tokens_is_cut_exactly(engine: Engine) -> None:
    whole = engine.generate(HELLO, sampling=GREEDY).content
    stop = whole[20:29]
    answer = engine.generate(HELLO, sampling=GREEDY, stop=["never", stop])
    assert answer.content == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    assert sum(engine.stream(HELLO, sampling=GREEDY, stop=[stop]), Chunk()).content == whole[: whole.index(stop)]


def test_eos_ends_the_answer_and_is_not_part_of_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    token = engine.tokenizer.encode(engine.generate(HELLO, sampling=GREEDY).content, add_special_tokens=False)[0]
    vocabulary = engine._vocabulary
    monkeypatch.setattr(engine, "_vocabulary", replace(vocabulary, stop_ids=vocabulary.stop_ids | {token}))
    answer = engine.generate(HELLO, sampling=GREEDY)
    assert (answer.content, answer.finish_reason) == ("", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


def test_a_seed_reproduces_and_temperature_has_an_effect(engine: Engine) -> None:
    def draw(**values: Any) -> str:
        return engine.generate(HELLO, sampling=Sampling(max_new_tokens=24, **values)).content

    assert draw(seed=1, temperature=1.0) == draw(seed=1, temperature=1.0)
    assert len({draw(seed=seed, temperature=1.0) for seed in range(4)}) == 4
    assert draw(temperature=0) == draw(temperature=0, seed=5)
    assert draw(top_k=1) == draw(temperature=0)
    assert draw(seed=1, temperature=1.0) != draw(temperature=0)


def test_family_defaults_hold_where_a_call_gives_nothing(engine: Engine) -> None:
    request = engine.prepare(HELLO, sampling=Sampling(temperature=0.1))
    assert (request.sampling.temperature, request.sampling.top_p) == (0.1, 0.95)
    thinking = engine.prepare(HELLO, enable_thinking=True)
    assert (thinking.sampling.temperature, thinking.thinking_opened) == (0.9, True)
    assert engine.prepare(HELLO, enable_thinking=False).thinking_opened is False


def test_max_new_tokens_is_cut_to_what_is_left_of_the_window(engine: Engine) -> None:
    prompt = "x" * 400
    length = engine.count_tokens([{"role": "user", "content": prompt}])
    request = engine.prepare([{"role": "user", "content": prompt}], sampling=Sampling(max_new_tokens=500))
    assert request.sampling.max_new_tokens == 512 - length
    assert len(request.prompt_ids) == length


def test_a_prompt_longer_than_the_window_is_refused_with_both_numbers(engine: Engine) -> None:
    prompt = [{"role": "user", "content": "x" * 2000}]
    with pytest.raises(ValueError, match=rf"the prompt has {engine.count_tokens(prompt)} tokens .* window 512"):
        engine.stream(prompt)


def test_a_string_is_completed_as_it_stands_and_bos_is_written_once(engine: Engine) -> None:
    assert engine.encode("hello") == [0, *engine.tokenizer.encode("hello", add_special_tokens=False)]
    assert engine.encode("<s>hello") == engine.encode("hello")
    assert engine.encode(HELLO).count(0) == 1


def test_the_chat_template_is_the_checkpoints_own(engine: Engine) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert engine.render(messages) == (
        "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello 你好<|im_end|>\n<|im_start|>assistant\n"
    )
    assert engine.render(HELLO, enable_thinking=True).endswith("assistant\n<think>\n")
    assert engine.render(HELLO, enable_thinking=False).endswith("assistant\n<think>\n\n</think>\n\n")


def test_reasoning_is_apart_from_the_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(monkeypatch, engine, "<think>\nhello world\n</think>\n\n保修期为两年 hello")
    answer = engine.generate(HELLO)
    assert (answer.reasoning, answer.content) == ("hello world", "保修期为两年 hello")
    assert answer.usage is not None
    assert 0 < answer.usage.reasoning_tokens < answer.usage.completion_tokens


def test_reasoning_that_the_template_opened_is_apart_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(monkeypatch, engine, "hello world\n</think>\n\nthe answer")
    assert engine.generate(HELLO, enable_thinking=True).reasoning == "hello world"
    assert engine.generate(HELLO, enable_thinking=True).content == "the answer"
    assert engine.generate(HELLO).content == "hello world\n</think>\n\nthe answer"


def test_stop_texts_do_not_look_into_the_reasoning(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(monkeypatch, engine, "<think>hello world</think>one hello two")
    answer = engine.generate(HELLO, stop=["hello"])
    assert (answer.reasoning, answer.content) == ("hello world", "one ")


def test_leaving_a_stream_early_stops_the_model_within_one_token(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = _count_steps(monkeypatch, engine)
    stream = engine.stream(HELLO, sampling=Sampling(max_new_tokens=400))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    at_close = len(steps)
    engine.generate(HELLO, sampling=Sampling(max_new_tokens=1))  # runs after the closed one has ended
    assert len(steps) <= at_close + 3  # the token under way, then the next request's prompt
    assert len(steps) < 400


async def test_leaving_an_async_stream_early_stops_the_model(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _count_steps(monkeypatch, engine)
    stream = engine.astream(HELLO, sampling=Sampling(max_new_tokens=400))
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    at_close = len(steps)
    await engine.agenerate(HELLO, sampling=Sampling(max_new_tokens=1))
    assert len(steps) <= at_close + 3


def test_two_streams_in_one_thread_do_not_wait_for_each_other(engine: Engine) -> None:
    whole = engine.generate(HELLO, sampling=GREEDY)
    first, second = engine.stream(HELLO, sampling=GREEDY), engine.stream(HELLO, sampling=GREEDY)
    pairs = list(zip(first, second, strict=True))
    assert sum((a for a, _ in pairs), Chunk()) == whole
    assert sum((b for _, b in pairs), Chunk()) == whole


def test_an_error_in_the_worker_reaches_the_caller_and_the_engine_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "forward", _fail)
        with pytest.raises(RuntimeError, match="out of order"):
            engine.generate(HELLO)
        with pytest.raises(RuntimeError, match="out of order"):
            asyncio.run(engine.agenerate(HELLO))
    assert engine.generate(HELLO, sampling=GREEDY).content


def test_eight_threads_get_their_own_whole_answers(engine: Engine) -> None:
    prompts = [[{"role": "user", "content": f"number {n}"}] for n in range(8)]
    alone = [engine.generate(prompt, sampling=GREEDY) for prompt in prompts]
    assert len({answer.content for answer in alone}) == 8
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: engine.generate(prompt, sampling=GREEDY), prompts))
    assert together == alone


async def test_eight_tasks_get_their_own_whole_answers_and_the_loop_ticks(engine: Engine) -> None:
    prompts = [[{"role": "user", "content": f"number {n}"}] for n in range(8)]
    alone = [engine.generate(prompt, sampling=GREEDY) for prompt in prompts]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    together = await asyncio.gather(*(engine.agenerate(prompt, sampling=GREEDY) for prompt in prompts))
    ticking.cancel()
    assert together == alone
    assert ticks > 20


def test_requests_run_in_order_of_arrival(engine: Engine) -> None:
    done: list[int] = []
    threads = []
    blocker = engine.stream(HELLO, sampling=Sampling(max_new_tokens=200))
    next(blocker)
    for n in range(4):

        def ask(n: int = n) -> None:
            engine.generate(HELLO, sampling=Sampling(max_new_tokens=8))
            done.append(n)

        threads.append(threading.Thread(target=ask))
        threads[-1].start()
        time.sleep(0.05)
    list(blocker)
    for thread in threads:
        thread.join()
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "word"}, "give a list"),
        ({"tool_choice": "any"}, "no tools are given"),
        ({"logprobs": 21}, "0 to 20"),
        ({"grammar": 'start: "a"', "response_schema": {"type": "object"}}, "leave out tools and response_schema"),
        ({"grammar": "start: nowhere"}, "cannot be used"),
        ({"stop": [""]}, "must not be empty"),
    ],
)
def test_options_that_are_not_accepted_are_refused(engine: Engine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine.generate(HELLO, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature is -1; accepted: 0 to 10"),
        ({"top_p": 0}, "top_p is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
    ],
)
def test_sampling_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**values)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "no messages"),
        ([{"role": "robot", "content": "x"}], "role 'robot' is unknown"),
        ([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}], "reads text only"),
        ([{"role": "user", "content": [{"type": "sound"}]}], "'sound' is not supported"),
    ],
)
def test_bad_messages_are_refused(engine: Engine, messages: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine.generate(messages)


def test_a_closed_engine_says_so(toy: Path) -> None:
    engine = minicpm_core.load(toy)
    engine.generate(HELLO, sampling=GREEDY)
    engine.close()
    with pytest.raises(RuntimeError, match="closed; load it again"):
        engine.generate(HELLO)


def test_closing_an_engine_does_not_pass_a_cut_answer_for_a_whole_one(toy: Path) -> None:
    engine = minicpm_core.load(toy)
    stream = engine.stream(HELLO, sampling=Sampling(max_new_tokens=400))
    next(stream)
    waiting = engine.stream(HELLO)
    closer = threading.Timer(0.2, engine.close)
    closer.start()
    with pytest.raises(RuntimeError, match="was closed before the answer was complete"):
        list(stream)
    closer.join()
    with pytest.raises(RuntimeError, match="closed"):
        list(waiting)


def test_identical_arguments_share_one_engine(toy: Path) -> None:
    first, second = minicpm_core.shared_engine(model=str(toy)), minicpm_core.shared_engine(model=toy)
    assert first is second
    first.close()
    third = minicpm_core.shared_engine(model=toy)
    assert third is not first
    assert third.generate(HELLO, sampling=GREEDY).content


def test_int4_keeps_the_head_in_eight_bits_and_embeddings_in_sixteen(toy: Path) -> None:
    pytest.importorskip("bitsandbytes")
    with minicpm_core.load(toy, quantization="int4", dtype="bfloat16") as engine:
        kinds = {name: type(module).__name__ for name, module in engine.model.named_modules()}
        assert kinds["model.layers.0.mlp.gate_proj"] == "Linear4bit"
        assert kinds["lm_head"] == "Head8bit"
        assert str(engine.model.get_input_embeddings().weight.dtype) == "torch.bfloat16"
        assert engine.generate(HELLO, sampling=GREEDY).usage is not None


def _script(monkeypatch: pytest.MonkeyPatch, engine: Engine, text: str) -> None:
    ids, end = engine.tokenizer.encode(text, add_special_tokens=False), min(engine._vocabulary.stop_ids)

    class Scripted(Sampler):
        """Draws the text's tokens in every answer, whatever the model says."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.script = iter(ids)

        def draw(self, logits: Any, allowed: Any = None) -> int:
            return next(self.script, end)

    monkeypatch.setattr("minicpm_core.answers.Sampler", Scripted)


def _count_steps(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> list[int]:
    steps: list[int] = []
    forward = engine.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", counted)
    return steps


def _fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("the model is out of order")
