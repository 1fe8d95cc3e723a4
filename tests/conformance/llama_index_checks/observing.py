"""Checks of what is told about calls: usage, callbacks, events; and of objects that are stored and copied."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler

from tests.conformance.llama_index_checks.base import Conformance, gather, text_of


class Events(BaseEventHandler):
    """Keeps the events of language models."""

    seen: list[Any]

    def handle(self, event: Any, **_: Any) -> None:
        """Keep an event."""
        if type(event).__name__.startswith("LLM"):
            self.seen.append(event)

    def names(self) -> list[str]:
        """Return the names of the events, in order."""
        return [type(event).__name__ for event in self.seen]


@contextmanager
def watch() -> Iterator[Events]:
    """Keep the events while the context is open."""
    handler, dispatcher = Events(seen=[]), get_dispatcher()
    dispatcher.add_event_handler(handler)
    try:
        yield handler
    finally:
        dispatcher.event_handlers.remove(handler)


def _check_usage(raw: Any) -> dict[str, int]:
    usage = raw["usage"]
    assert all(isinstance(usage[name], int) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return dict(usage)


class ObservingTests(Conformance):
    """Usage, callbacks, instrumentation, serialisation."""

    async def test_usage(self) -> None:
        """`raw["usage"]` of chat and complete, also asynchronous, has counts that add up."""
        self.need("has_token_usage")
        llm = self.create()
        for response in (llm.chat(self.ask()), llm.complete(self.question)):
            _check_usage(response.raw)
        _check_usage((await llm.achat(self.ask())).raw)
        _check_usage((await llm.acomplete(self.question)).raw)

    async def test_usage_of_streams(self) -> None:
        """The last response of a stream has the usage of the whole answer."""
        self.need("has_token_usage", "is_deterministic")
        llm = self.create()
        expected = _check_usage(llm.chat(self.ask()).raw)["completion_tokens"]
        assert _check_usage(list(llm.stream_chat(self.ask()))[-1].raw)["completion_tokens"] == expected
        assert _check_usage((await gather(llm.astream_chat(self.ask())))[-1].raw)["completion_tokens"] == expected

    def test_raw_is_plain(self) -> None:
        """`raw` is None or a dict that JSON can hold: no tensors that would be kept alive by events."""
        llm = self.create()
        responses = [llm.chat(self.ask()), llm.complete(self.question), *llm.stream_chat(self.ask())]
        for response in [*responses, *llm.stream_complete(self.question)]:
            assert response.raw is None or isinstance(response.raw, dict), f"raw is a {type(response.raw).__name__}"
            json.dumps(response.raw)

    def test_callbacks(self) -> None:
        """The callback manager hears of each call and each stream exactly once, with its response."""
        debug = LlamaDebugHandler(print_trace_on_end=False)
        llm = self.create(callback_manager=CallbackManager([debug]))
        asks: tuple[Callable[[], Any], ...] = (
            lambda: llm.chat(self.ask()),
            lambda: llm.complete(self.question),
            lambda: list(llm.stream_chat(self.ask())),
            lambda: list(llm.stream_complete(self.question)),
        )
        for ask in asks:
            debug.flush_event_logs()
            ask()
            pairs = debug.get_llm_inputs_outputs()
            assert len(pairs) == 1, f"{len(pairs)} events for one call"
            assert "formatted_prompt" in pairs[0][0].payload or "messages" in pairs[0][0].payload
            assert "response" in pairs[0][1].payload or "completion" in pairs[0][1].payload

    async def test_async_callbacks(self) -> None:
        """The callback manager hears of each asynchronous call exactly once."""
        debug = LlamaDebugHandler(print_trace_on_end=False)
        llm = self.create(callback_manager=CallbackManager([debug]))
        asks: tuple[Callable[[], Any], ...] = (
            lambda: llm.achat(self.ask()),
            lambda: llm.acomplete(self.question),
            lambda: gather(llm.astream_chat(self.ask())),
            lambda: gather(llm.astream_complete(self.question)),
        )
        for ask in asks:
            debug.flush_event_logs()
            await ask()
            assert len(debug.get_llm_inputs_outputs()) == 1

    async def test_events_of_calls(self) -> None:
        """Instrumentation gets one start and one end event of each call, in this order."""
        llm = self.create()
        with watch() as events:
            llm.chat(self.ask())
            await llm.achat(self.ask())
        assert events.names() == ["LLMChatStartEvent", "LLMChatEndEvent"] * 2
        with watch() as events:
            llm.complete(self.question)
            await llm.acomplete(self.question)
        assert events.names() == ["LLMCompletionStartEvent", "LLMCompletionEndEvent"] * 2

    async def test_events_of_streams(self) -> None:
        """Instrumentation gets a start event, one per response of the stream, and an end event with the last."""
        llm = self.create()
        for kind in ("Chat", "Completion"):
            with watch() as events:
                if kind == "Chat":
                    responses = list(llm.stream_chat(self.ask()))
                else:
                    responses = await gather(llm.astream_complete(self.question))
            middle = [f"LLM{kind}InProgressEvent"] * len(responses)
            assert events.names() == [f"LLM{kind}StartEvent", *middle, f"LLM{kind}EndEvent"]
            assert text_of(events.seen[-1].response) == text_of(responses[-1])

    def test_events_name_the_model(self) -> None:
        """The start event's model_dict tells the class and nothing secret."""
        llm = self.create(**self.secret_params)
        with watch() as events:
            llm.callback_manager = CallbackManager([])
            try:
                llm.chat(self.ask())
            except Exception:
                assert self.secret_params  # a wrong key may be refused, after the event
        told = json.dumps(events.seen[0].model_dict, default=str)
        assert llm.class_name() in told
        assert not any(str(secret) in told for secret in self.secret_params.values())

    def test_token_counting_handler(self) -> None:
        """LlamaIndex's TokenCountingHandler counts the tokens of `raw["usage"]`, of calls and of streams."""
        self.need("has_token_usage")
        counter = TokenCountingHandler(tokenizer=lambda text: [0] * 100_000)
        llm = self.create(callback_manager=CallbackManager([counter]))
        usages = [llm.chat(self.ask()).raw["usage"], list(llm.stream_chat(self.ask()))[-1].raw["usage"]]
        assert counter.prompt_llm_token_count == sum(usage["prompt_tokens"] for usage in usages)
        assert counter.completion_llm_token_count == sum(usage["completion_tokens"] for usage in usages)

    def test_unknown_arguments_are_not_swallowed(self) -> None:
        """A misspelt constructor argument is an error, or at least kept."""
        try:
            llm = self.create(temprature=0.5)
        except (TypeError, ValueError):
            return
        assert "temprature" in json.dumps(llm.to_dict(), default=str)

    def test_serialisation(self) -> None:
        """to_dict is plain JSON with the class name, and from_dict makes an LLM with the same settings."""
        llm = self.create()
        stored = llm.to_dict()
        assert stored["class_name"] == llm.class_name()
        again = type(llm).from_dict(json.loads(json.dumps(stored)))
        assert again.to_dict() == stored
        if self.is_deterministic:
            assert text_of(again.chat(self.ask())) == text_of(llm.chat(self.ask()))

    def test_secrets_are_not_stored(self) -> None:
        """Keys stand neither in to_dict nor in the printed form."""
        if not self.secret_params:
            pytest.skip("there are no secret_params")
        llm = self.create(**self.secret_params)
        shown = json.dumps(llm.to_dict(), default=str) + repr(llm) + str(llm)
        assert not any(str(secret) in shown for secret in self.secret_params.values())

    def test_pickle(self) -> None:
        """A pickled LLM comes back with its settings and answers the same."""
        self.need("supports_pickle")
        llm = self.create()
        answer = text_of(llm.chat(self.ask()))
        again = pickle.loads(pickle.dumps(llm))
        assert again.to_dict() == llm.to_dict()
        assert not self.is_deterministic or text_of(again.chat(self.ask())) == answer

    def test_copies(self) -> None:
        """Copies have the settings, answer the same, and do not share later changes."""
        self.need("supports_pickle")
        llm = self.create()
        answer = text_of(llm.chat(self.ask()))
        for again in (copy.deepcopy(llm), llm.model_copy()):
            again.system_prompt = "changed"
            assert llm.system_prompt != "changed"
            again.system_prompt = llm.system_prompt
            assert not self.is_deterministic or text_of(again.chat(self.ask())) == answer
