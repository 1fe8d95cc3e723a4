"""Batches: inputs are answered side by side, and each is still a call of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from pydantic import BaseModel, Field

from langchain_minicpm import ChatMiniCPM, MiniCPMLLM
from minicpm_core import Chunk, Engine, Usage
from tests.langchain.conftest import Recorder, ScriptedEngine

QUESTIONS = [f"Question {n}{' and more' * (n % 3)}?" for n in range(5)]


def scripted() -> ScriptedEngine:
    return ScriptedEngine(Chunk("yes", finish_reason="stop", usage=Usage(2, 1)))


def sizes(engine: ScriptedEngine) -> list[int]:
    return [size for size, _, _ in engine.batches]


async def ways(chat: ChatMiniCPM, inputs: list[Any], config: Any = None, **options: Any) -> list[list[Any]]:
    return [chat.batch(inputs, config, **options), await chat.abatch(inputs, config, **options)]


async def test_a_batch_gives_what_single_calls_give(chat: ChatMiniCPM, engine: Engine) -> None:
    single = [chat.invoke(question) for question in QUESTIONS]
    rows: list[int] = []
    hook = engine.model.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(inputs["input_ids"].shape[0]), with_kwargs=True
    )
    with hook:
        results = await ways(chat, QUESTIONS)
        result = chat.generate([chat._convert_input(q).to_messages() for q in QUESTIONS])
    assert max(rows) == 5
    for answers in results:
        assert [a.content for a in answers] == [a.content for a in single]
        assert [a.usage_metadata["output_tokens"] for a in answers] == [16] * 5
        assert [a.response_metadata for a in answers] == [a.response_metadata for a in single]
    assert [row[0].text for row in result.generations] == [a.content for a in single]
    assert len({run.run_id for run in result.run}) == 5


async def test_completions_are_batched_too(llm: MiniCPMLLM, engine: Engine) -> None:
    single = [llm.invoke(question) for question in QUESTIONS]
    assert llm.batch(QUESTIONS) == await llm.abatch(QUESTIONS) == single
    assert llm.batch(QUESTIONS, {"max_concurrency": 2}) == single
    scripted_engine = scripted()
    MiniCPMLLM(engine=scripted_engine).batch([*QUESTIONS, *QUESTIONS])
    assert sizes(scripted_engine) == [8, 2]


async def test_max_concurrency_is_the_size_of_a_batch() -> None:
    for limit, expected in ((None, [8, 3]), (4, [4, 4, 3]), (20, [11])):
        engine = scripted()
        chat = ChatMiniCPM(engine=engine, seed=3)
        answers = await ways(chat, [f"q{n}" for n in range(11)], {"max_concurrency": limit} if limit else None)
        assert [[a.content for a in way] for way in answers] == [[f"q{n}: yes" for n in range(11)]] * 2
        assert sizes(engine) == expected * 2
        assert all(batch_size >= size for size, batch_size, _ in engine.batches)
        assert engine.batches[0][2]["sampling"].seed == 3


async def test_each_input_has_its_own_run() -> None:
    chat = ChatMiniCPM(engine=scripted())
    recorder = Recorder()
    await ways(chat, ["a", "b", "c"], {"callbacks": [recorder]})
    assert len(recorder.started) == len(recorder.ends) == 6
    assert recorder.errors == []
    own = [Recorder(), Recorder()]
    chat.batch(["a", "b"], [{"callbacks": [one], "tags": [str(n)]} for n, one in enumerate(own)])
    assert [len(one.ends) for one in own] == [1, 1]
    assert [one.prompts[0][0].content for one in own] == ["a", "b"]
    assert [one.ends[0].generations[0][0].text for one in own] == ["a: yes", "b: yes"]
    assert [one.started[0]["tags"] for one in own] == [["0"], ["1"]]


async def test_an_input_that_fails_fails_alone() -> None:
    engine = scripted()
    chat = ChatMiniCPM(engine=engine)
    recorder = Recorder()
    inputs = ["a", "refuse", "c"]
    for answers in await ways(chat, inputs, {"callbacks": [recorder]}, return_exceptions=True):
        assert [a if isinstance(a, Exception) else a.content for a in answers][::2] == ["a: yes", "c: yes"]
        assert isinstance(answers[1], ValueError)
    assert (len(recorder.errors), len(recorder.ends)) == (2, 4)
    with pytest.raises(ValueError, match="refused"):
        chat.batch(inputs)
    with pytest.raises(ValueError, match="refused"):
        await chat.abatch(inputs)
    with pytest.raises(TypeError, match="logit_bias"):
        chat.batch(["a", "b"], logit_bias={})


async def test_a_completion_that_fails_fails_alone(llm: MiniCPMLLM) -> None:
    inputs = [QUESTIONS[0], "word " * 5000, QUESTIONS[1]]
    single = [llm.invoke(question) for question in QUESTIONS[:2]]
    recorder = Recorder()
    config: Any = {"callbacks": [recorder]}
    both = [
        llm.batch(inputs, config, return_exceptions=True),
        await llm.abatch(inputs, config, return_exceptions=True),
    ]
    for answers in both:
        assert answers[::2] == single
        assert "context window" in str(answers[1])
        assert isinstance(answers[1], ValueError)
    assert (len(recorder.errors), len(recorder.ends)) == (2, 4)
    with pytest.raises(ValueError, match="context window"):
        llm.batch(inputs)
    with pytest.raises(ValueError, match="context window"):
        await llm.abatch(inputs)
    assert llm.batch([]) == await llm.abatch([]) == []


async def test_an_error_of_the_model_reaches_every_input(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = scripted()

    def fail(*_: Any, **__: Any) -> list[Chunk]:
        raise RuntimeError("out of order")

    monkeypatch.setattr(engine, "generate_batch", fail)
    for answers in await ways(ChatMiniCPM(engine=engine), ["a", "b"], return_exceptions=True):
        assert [str(a) for a in answers] == ["out of order"] * 2


async def test_what_is_cached_is_not_asked_again() -> None:
    engine = scripted()
    chat = ChatMiniCPM(engine=engine, cache=InMemoryCache())
    chat.batch(["a", "b"])
    for answers in await ways(chat, ["a", "c", "d", "b"]):
        assert [a.content for a in answers] == ["a: yes", "c: yes", "d: yes", "b: yes"]
    assert sizes(engine) == [2, 2]


async def test_the_rate_is_limited() -> None:
    limiter = InMemoryRateLimiter(requests_per_second=1000, check_every_n_seconds=0.001, max_bucket_size=1)
    taken: list[bool] = []
    original = limiter._consume
    limiter._consume = lambda: taken.append(got := original()) or got  # type: ignore[method-assign]
    chat = ChatMiniCPM(engine=scripted(), rate_limiter=limiter)
    await ways(chat, ["a", "b", "c"])
    assert sum(taken) == 6


async def test_inputs_of_a_batch_can_be_streamed() -> None:
    engine = scripted()
    chat = ChatMiniCPM(engine=engine)
    for answers in await ways(chat, ["a", "b"], stream=True):
        assert [a.content for a in answers] == ["yes", "yes"]
    assert engine.batches == []
    assert len(engine.asked) == 4


def test_a_streamed_input_does_not_hold_up_the_others() -> None:
    class Listening(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
        def tap_output_iter(self, run_id: Any, output: Any) -> Any:
            return output

        def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
            return output

    class Waiting(ScriptedEngine):
        def stream(self, messages: Any, **options: Any) -> Iterator[Chunk]:
            assert answered.wait(30), "the others wait for the streamed input"
            yield from super().stream(messages, **options)

        def generate_batch(self, prompts: list[Any], **options: Any) -> list[Chunk]:
            answered.set()
            return super().generate_batch(prompts, **options)

    answered = threading.Event()
    chat = ChatMiniCPM(engine=Waiting(Chunk("yes", finish_reason="stop")))
    answers = chat.batch(["a", "b", "c"], [{}, {"callbacks": [Listening()]}, {}])
    assert [a.content for a in answers] == ["a: yes", "yes", "c: yes"]


async def test_a_callback_may_ask_the_model_itself() -> None:
    engine = scripted()
    chat = ChatMiniCPM(engine=engine)
    said = []

    class Asking(BaseCallbackHandler):
        def on_llm_end(self, response: Any, **_: Any) -> None:
            said.append(ChatMiniCPM(engine=engine).invoke("inner").content)

    chat.batch(["a", "b"], {"callbacks": [Asking()]})
    assert said == ["yes", "yes"]


async def test_a_cancelled_batch_ends(chat: ChatMiniCPM, engine: Engine) -> None:
    passes: list[int] = []
    started, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell(*_: Any) -> None:
        passes.append(1)
        loop.call_soon_threadsafe(started.set)

    with engine.model.register_forward_hook(tell):
        task = asyncio.create_task(chat.abatch(QUESTIONS, max_tokens=300))
        await asyncio.wait_for(started.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await chat.ainvoke("Hi", max_tokens=1)
    assert len(passes) < 250


class Order(BaseModel):
    """Order goods."""

    item: str = Field(max_length=8)
    count: int = Field(ge=1, le=9)


async def test_tools_schemas_and_parsers_go_through_a_batch(toys: dict[str, Any]) -> None:
    chat = ChatMiniCPM(model=toys["minicpm5"], temperature=0, max_tokens=200)
    bound = chat.bind_tools([Order], tool_choice="any", parallel_tool_calls=False)
    single = [bound.invoke(question).tool_calls[0]["args"] for question in QUESTIONS[:3]]
    assert [answer.tool_calls[0]["args"] for answer in bound.batch(QUESTIONS[:3])] == single
    structured = chat.with_structured_output(Order)
    assert structured.batch(QUESTIONS[:3]) == [structured.invoke(question) for question in QUESTIONS[:3]]
    assert [
        answer["parsed"] for answer in await chat.with_structured_output(Order, include_raw=True).abatch(QUESTIONS[:3])
    ] == [structured.invoke(question) for question in QUESTIONS[:3]]


async def test_answers_with_a_time_limit_are_made_one_by_one() -> None:
    engine = scripted()
    assert [a.content for a in ChatMiniCPM(engine=engine, timeout=60).batch(["a", "b"])] == ["yes", "yes"]
    assert engine.batches == []
    assert ChatMiniCPM(engine=engine).batch([]) == await ChatMiniCPM(engine=engine).abatch([]) == []
