"""Checks of calls that run beside others, and of calls that are left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.llama_index_checks.base import Conformance, gather, text_of


async def _longest_gap(work: Awaitable[Any]) -> tuple[float, float, int]:
    """Return (longest time in which the event loop stood still, time of the work, turns of the loop)."""
    gap, turns, done = 0.0, 0, asyncio.Event()

    async def tick() -> None:
        nonlocal gap, turns
        last = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gap, last, turns = max(gap, now - last), now, turns + 1

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    begin = time.perf_counter()
    await work
    took = time.perf_counter() - begin
    done.set()
    await ticker
    return gap, took, turns


class RunningTests(Conformance):
    """The event loop, threads, tasks and streams that are left early."""

    async def _check_loop_runs(self, work: Any) -> None:
        gap, took, turns = await _longest_gap(work)
        if took >= 0.05:  # too short an answer shows nothing
            assert turns >= 5, f"the event loop turned {turns} times in {took:.2f} s"
            assert gap < 0.7 * took, f"the event loop stood still for {gap:.2f} of {took:.2f} s"

    async def test_achat_does_not_block(self) -> None:
        """The event loop keeps turning while achat is waited for."""
        llm = self.create()
        llm.chat(self.ask(), max_tokens=1)
        await self._check_loop_runs(llm.achat(self.ask(), **self.long_options))

    async def test_acomplete_does_not_block(self) -> None:
        """The event loop keeps turning while acomplete is waited for."""
        llm = self.create()
        llm.chat(self.ask(), max_tokens=1)
        await self._check_loop_runs(llm.acomplete(self.question, **self.long_options))

    async def test_astream_chat_does_not_block(self) -> None:
        """The event loop keeps turning between the responses of astream_chat."""
        llm = self.create()
        llm.chat(self.ask(), max_tokens=1)
        await self._check_loop_runs(gather(llm.astream_chat(self.ask(), **self.long_options)))

    def test_leaving_a_stream_stops_the_work(self) -> None:
        """When a stream is closed, the model stops within a few steps."""
        llm = self.create()
        counting = self.count_work(llm)
        if counting is None:
            pytest.skip("count_work is not defined")
        with counting as steps:
            list(llm.stream_chat(self.ask(), **self.long_options))
            whole = len(steps)
            assert whole >= 10, "long_options make no long answer"
            steps.clear()
            stream = llm.stream_chat(self.ask(), **self.long_options)
            next(stream)
            stream.close()
            time.sleep(0.2)
            assert len(steps) < whole / 2

    async def test_leaving_an_async_stream_stops_the_work(self) -> None:
        """When an asynchronous stream is closed, the model stops within a few steps."""
        llm = self.create()
        counting = self.count_work(llm)
        if counting is None:
            pytest.skip("count_work is not defined")
        with counting as steps:
            await gather(llm.astream_chat(self.ask(), **self.long_options))
            whole = len(steps)
            assert whole >= 10, "long_options make no long answer"
            steps.clear()
            stream = await llm.astream_chat(self.ask(), **self.long_options)
            await anext(stream)
            await stream.aclose()
            await asyncio.sleep(0.2)
            assert len(steps) < whole / 2

    async def test_cancelling_stops_the_work(self) -> None:
        """When the task that waits for achat is cancelled, the model stops and the next call is answered."""
        llm = self.create()
        counting = self.count_work(llm)
        if counting is None:
            pytest.skip("count_work is not defined")
        with counting as steps:
            await llm.achat(self.ask(), **self.long_options)
            whole = len(steps)
            steps.clear()
            task = asyncio.create_task(llm.achat(self.ask(), **self.long_options))
            while not steps:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.2)
            assert len(steps) < whole / 2
        assert text_of(await llm.achat(self.ask()))

    def test_left_streams_do_not_disturb_later_calls(self) -> None:
        """After a stream was left, the next call gives its usual answer."""
        llm = self.create()
        before = text_of(llm.chat(self.ask()))
        stream = llm.stream_chat(self.ask(), **self.long_options)
        next(stream)
        stream.close()
        after = text_of(llm.chat(self.ask()))
        assert after == before if self.is_deterministic else after

    def test_threads_do_not_mix(self) -> None:
        """Calls from four threads give the answers that they give alone."""
        llm = self.create()
        questions = ["hello", "你好", "What is this?", "one two three"]
        alone = [text_of(llm.chat(self.ask(question))) for question in questions]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda question: text_of(llm.chat(self.ask(question))), questions))
        assert together == alone if self.is_deterministic else all(together)

    async def test_tasks_do_not_mix(self) -> None:
        """Streams that are read in turns give the answers that they give alone."""
        llm = self.create()
        questions = ["hello", "你好", "What is this?"]
        alone = [text_of(await llm.achat(self.ask(question))) for question in questions]
        streams = [gather(llm.astream_chat(self.ask(question))) for question in questions]
        together = [text_of(responses[-1]) for responses in await asyncio.gather(*streams)]
        assert together == alone if self.is_deterministic else all(together)

    async def test_errors_reach_the_caller(self) -> None:
        """An error of the model is raised in each way to ask, and no way waits for ever."""
        self.need("refuses_long_prompts")
        llm = self.create()
        messages = self.ask("word 你好 " * llm.metadata.context_window)
        for ask in (lambda: llm.achat(messages), lambda: gather(llm.astream_chat(messages))):
            with pytest.raises(Exception, match=r"(?i)context|token|long"):
                await asyncio.wait_for(ask(), 60)
        with pytest.raises(Exception, match=r"(?i)context|token|long"):
            list(llm.stream_chat(messages))
