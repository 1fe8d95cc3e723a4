"""MiniCPM and MiniCPMLLM: the engine's exact text through LlamaIndex's eight ways to ask."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.prompts import PromptTemplate

import minicpm_core
from llamaindex_minicpm import MiniCPM, MiniCPMLLM
from llamaindex_minicpm.convert import to_messages
from minicpm_core import Engine, Sampling

HELLO = [ChatMessage(role="user", content="hello 你好")]
PLAIN = [{"role": "user", "content": "hello 你好"}]


@pytest.fixture(scope="module")
def engine(toy: Path) -> Engine:
    """The engine that all classes with the same arguments share."""
    return minicpm_core.shared_engine(
        model=str(toy),
        quantization="auto",
        dtype="auto",
        device="auto",
        memory_limit=None,
        context_window=None,
        adapter=None,
        family=None,
        revision=None,
        base_url=None,
        api_key=None,
    )


@pytest.fixture(params=[MiniCPM, MiniCPMLLM])
def llm(request: pytest.FixtureRequest, toy: Path) -> Any:
    return request.param(model=toy, temperature=0, max_tokens=32)


@pytest.fixture
def expected(engine: Engine) -> minicpm_core.Chunk:
    return engine.generate(PLAIN, sampling=Sampling(temperature=0, max_new_tokens=32))


class Seen(BaseEventHandler):
    """Keeps every event."""

    events: list[Any]

    def handle(self, event: Any, **_: Any) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events if type(event).__name__.startswith("LLM")]


@pytest.fixture
def seen() -> Iterator[Seen]:
    handler = Seen(events=[])
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


def test_chat_gives_the_engines_answer_and_counts(llm: Any, expected: minicpm_core.Chunk, toy: Path) -> None:
    response = llm.chat(HELLO)
    assert response.message.content == expected.content
    assert response.message.role == MessageRole.ASSISTANT
    assert expected.usage is not None
    assert response.raw == {
        "model": str(toy),
        "finish_reason": "length",
        "usage": {
            "prompt_tokens": expected.usage.prompt_tokens,
            "completion_tokens": 32,
            "total_tokens": expected.usage.prompt_tokens + 32,
        },
    }
    json.dumps(response.raw)


def test_complete_asks_the_same_as_one_user_turn(llm: Any, expected: minicpm_core.Chunk) -> None:
    response = llm.complete("hello 你好")
    assert response.text == expected.content
    assert response.raw == llm.chat(HELLO).raw


def test_streams_are_cumulative_and_add_up(llm: Any, expected: minicpm_core.Chunk) -> None:
    for responses in (list(llm.stream_chat(HELLO)), list(llm.stream_complete("hello 你好"))):
        texts = [getattr(r, "text", None) or r.message.content for r in responses[1:]]
        deltas = [r.delta for r in responses]
        assert len(responses) > 10
        assert "".join(deltas) == expected.content == texts[-1]
        assert texts[4] == "".join(deltas[:6])
        assert [r.raw for r in responses[:-1]] == [None] * (len(responses) - 1)
        assert responses[-1].raw == llm.chat(HELLO).raw


async def test_async_twins_give_the_same(llm: Any) -> None:
    chat, complete = llm.chat(HELLO), llm.complete("hello 你好")
    assert await llm.achat(HELLO) == chat
    assert await llm.acomplete("hello 你好") == complete
    assert [r async for r in await llm.astream_chat(HELLO)] == list(llm.stream_chat(HELLO))
    completions = [r async for r in await llm.astream_complete("hello 你好")]
    assert completions == list(llm.stream_complete("hello 你好"))


def test_formatted_and_raw_prompts_are_continued_as_they_stand(llm: Any, engine: Engine, toy: Path) -> None:
    expected = engine.generate("The lamp", sampling=Sampling(temperature=0, max_new_tokens=8)).content
    assert llm.complete("The lamp", formatted=True, max_tokens=8).text == expected
    assert type(llm)(model=toy, temperature=0, max_tokens=8, raw=True).complete("The lamp").text == expected
    assert llm.complete("The lamp", max_tokens=8).text != expected


def test_stop_text_is_exact_in_every_way_of_asking(llm: Any, expected: minicpm_core.Chunk, toy: Path) -> None:
    stop = expected.content[6:9]
    cut = expected.content[: expected.content.index(stop)]
    assert llm.chat(HELLO, stop=[stop]).message.content == cut
    assert llm.chat(HELLO, stop=[stop]).raw["finish_reason"] == "stop"
    assert "".join(r.delta for r in llm.stream_chat(HELLO, stop=[stop])) == cut
    assert type(llm)(model=toy, temperature=0, stop=[stop]).complete("hello 你好").text == cut


def test_sampling_arguments_reach_the_model(llm: Any, expected: minicpm_core.Chunk) -> None:
    def ask(**values: Any) -> str:
        return str(llm.chat(HELLO, **values).message.content)

    assert ask(temperature=1.0, seed=1) == ask(temperature=1.0, seed=1)
    assert len({ask(temperature=1.0, seed=seed) for seed in range(4)} | {expected.content}) == 5
    assert ask(temperature=1.0, top_k=1) == expected.content
    assert ask(temperature=1.0, top_p=1e-6) == expected.content
    assert ask(repetition_penalty=5.0) != expected.content
    assert llm.chat(HELLO, max_tokens=3).raw["usage"]["completion_tokens"] == 3


def test_system_prompt_is_used_once(toy: Path, engine: Engine) -> None:
    system = {"role": "system", "content": "Answer in one word."}
    expected = engine.generate([system, *PLAIN], sampling=Sampling(temperature=0, max_new_tokens=16))
    llm = MiniCPM(model=toy, temperature=0, max_tokens=16, system_prompt="Answer in one word.")
    assert expected.usage is not None
    assert llm.complete("hello 你好").raw["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
    assert llm.chat(HELLO).message.content == expected.content
    assert llm.predict(PromptTemplate("hello {who}"), who="你好") == expected.content
    own = [ChatMessage(role="system", content="Be brief."), *HELLO]
    assert (
        llm.chat(own).message.content == MiniCPM(engine=engine, temperature=0, max_tokens=16).chat(own).message.content
    )


def test_prompt_functions_of_llamaindex_are_honoured(toy: Path, engine: Engine) -> None:
    sampling = Sampling(temperature=0, max_new_tokens=8)
    llm = MiniCPM(
        model=toy,
        temperature=0,
        max_tokens=8,
        messages_to_prompt=lambda messages: "The quick " + str(messages[-1].content),
        completion_to_prompt=lambda prompt: f"<<{prompt}>>",
    )
    assert llm.chat(HELLO).message.content == engine.generate("The quick hello 你好", sampling=sampling).content
    assert llm.complete("fox").text == engine.generate("<<fox>>", sampling=sampling).content


def test_thinking_is_apart_from_the_answer(toy: Path, engine: Engine) -> None:
    llm = MiniCPM(model=toy, temperature=0, max_tokens=12, enable_thinking=True)
    expected = engine.generate(PLAIN, sampling=Sampling(temperature=0, max_new_tokens=12), enable_thinking=True)
    assert expected.reasoning
    response = llm.chat(HELLO)
    thinking = response.message.blocks[0]
    assert isinstance(thinking, ThinkingBlock)
    assert thinking.content == expected.reasoning
    assert response.message.content == expected.content
    pieces = list(llm.stream_chat(HELLO))
    assert "".join(r.additional_kwargs.get("thinking_delta", "") for r in pieces) == expected.reasoning
    assert "".join(r.delta or "" for r in pieces) == expected.content
    assert llm.complete("hello 你好").additional_kwargs == {"reasoning": expected.reasoning}


def test_leaving_a_stream_stops_the_model_even_when_handlers_keep_everything(
    toy: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = MiniCPM(
        model=toy, temperature=0, max_tokens=400, callback_manager=CallbackManager([LlamaDebugHandler(False)])
    )
    steps = _count_steps(llm, monkeypatch)
    for ask in (lambda: llm.stream_chat(HELLO), lambda: llm.stream_complete("hello")):
        steps.clear()
        stream = ask()
        next(stream)
        stream.close()
        assert llm.complete("hello", max_tokens=1).raw["usage"]["completion_tokens"] == 1
        assert len(steps) < 100
    assert any(type(event).__name__ == "ExceptionEvent" for event in seen.events)


async def test_leaving_an_async_stream_stops_the_model(toy: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = MiniCPMLLM(model=toy, temperature=0, max_tokens=400)
    steps = _count_steps(llm, monkeypatch)
    stream = await llm.astream_chat(HELLO)
    await anext(stream)
    await stream.aclose()
    assert (await llm.acomplete("hello", max_tokens=1)).raw["usage"]["completion_tokens"] == 1
    assert len(steps) < 100
    assert seen.events


def _count_steps(llm: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note every forward pass of the model."""
    steps: list[int] = []
    model = llm.load_engine().model
    forward = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    return steps


async def test_the_event_loop_runs_while_weights_load_and_the_model_answers(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = MiniCPM(model=toy, temperature=0, max_tokens=8)
    loop_thread = threading.get_ident()
    gate = threading.Event()
    load = type(llm).load_engine
    threads: list[int] = []

    def slow_load(self: Any) -> Any:
        threads.append(threading.get_ident())
        assert gate.wait(20), "the event loop did not run while the model was loading"
        return load(self)

    monkeypatch.setattr(type(llm), "load_engine", slow_load)

    for ask in (llm.achat(HELLO), llm.acomplete("hello"), llm.astream_chat(HELLO), llm.astream_complete("hello")):
        gate.clear()
        task = asyncio.create_task(ask)
        while not threads:
            await asyncio.sleep(0)
        gate.set()
        result = await task
        if hasattr(result, "__aiter__"):
            assert [r async for r in result][-1].raw["usage"]["completion_tokens"] == 8
        else:
            assert result.raw["usage"]["completion_tokens"] == 8
        assert threads.pop() != loop_thread


def test_events_come_once_per_call(llm: Any, seen: Seen) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm.callback_manager = CallbackManager([debug])
    for call, names in [
        (lambda: llm.chat(HELLO), ["LLMChatStartEvent", "LLMChatEndEvent"]),
        (lambda: llm.complete("hello"), ["LLMCompletionStartEvent", "LLMCompletionEndEvent"]),
        (lambda: asyncio.run(llm.achat(HELLO)), ["LLMChatStartEvent", "LLMChatEndEvent"]),
        (lambda: asyncio.run(llm.acomplete("hello")), ["LLMCompletionStartEvent", "LLMCompletionEndEvent"]),
    ]:
        seen.events.clear()
        debug.flush_event_logs()
        call()
        assert seen.names() == names
        assert len(debug.get_llm_inputs_outputs()) == 1
    seen.events.clear()
    count = len(list(llm.stream_chat(HELLO)))
    assert seen.names() == ["LLMChatStartEvent", *["LLMChatInProgressEvent"] * count, "LLMChatEndEvent"]
    assert seen.events[0].model_dict["model_name"] == llm.model


def test_token_counting_handler_counts_the_models_tokens(llm: Any) -> None:
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 10_000)
    llm.callback_manager = CallbackManager([counter])
    usage = llm.chat(HELLO).raw["usage"]
    list(llm.stream_chat(HELLO))
    llm.complete("hello 你好")
    assert counter.prompt_llm_token_count == 3 * usage["prompt_tokens"]
    assert counter.completion_llm_token_count == 3 * 32


def test_metadata_tells_the_fitted_window_without_loading(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> Any:
        raise AssertionError("metadata loaded the model")

    monkeypatch.setattr("minicpm_core.registry.load", refuse)
    metadata = MiniCPM(model=toy, revision="not loaded yet", max_tokens=40).metadata
    assert (metadata.context_window, metadata.num_output) == (512, 40)
    assert (metadata.is_chat_model, metadata.is_function_calling_model) == (True, True)
    assert metadata.model_name == str(toy)
    assert not MiniCPMLLM(model=toy).metadata.is_function_calling_model
    assert MiniCPM(model=toy, context_window=100).metadata.context_window == 100
    assert MiniCPM(model=toy, context_window=100).metadata.num_output == 25
    assert MiniCPM(model=toy).to_payload() == {"class_name": "MiniCPM", "model_name": str(toy), "is_chat_model": True}


def test_metadata_of_a_loaded_engine_is_the_engines(toy: Path) -> None:
    llm = MiniCPM(model=toy, context_window=96, max_tokens=4)
    llm.chat(HELLO)
    assert llm.metadata.context_window == llm.load_engine().context_window == 96
    with pytest.raises(ValueError, match="context window 96"):
        llm.complete("long " * 200)


def test_a_ready_engine_is_used_and_not_serialised(engine: Engine, toy: Path) -> None:
    llm = MiniCPM(engine=engine, temperature=0, max_tokens=4)
    assert llm.load_engine() is engine
    assert llm.metadata.model_name == str(toy)
    assert "engine" not in llm.to_dict()
    with pytest.raises(ValueError, match="leave out device"):
        MiniCPM(engine=engine, device="cpu")


def test_equal_arguments_share_one_engine(toy: Path, engine: Engine) -> None:
    assert MiniCPM(model=toy).load_engine() is MiniCPMLLM(model=str(toy), temperature=1).load_engine() is engine


def test_settings_survive_serialisation(llm: Any) -> None:
    again = type(llm).from_dict(llm.to_dict())
    assert again.to_dict() == llm.to_dict()
    assert again.chat(HELLO) == llm.chat(HELLO)


def test_environment_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINICPM_MODEL", raising=False)
    monkeypatch.delenv("MINICPM_MEMORY_LIMIT", raising=False)
    assert (MiniCPM().model, MiniCPM().memory_limit, MiniCPM().quantization) == ("openbmb/MiniCPM5-1B", None, "auto")
    monkeypatch.setenv("MINICPM_MODEL", "some/model")
    monkeypatch.setenv("MINICPM_MEMORY_LIMIT", "3GiB")
    assert (MiniCPMLLM().model, MiniCPMLLM().memory_limit) == ("some/model", "3GiB")


def test_unknown_arguments_are_refused_with_those_accepted(llm: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown arguments: temprature; accepted: .*temperature"):
        type(llm)(temprature=1)
    with pytest.raises(ValueError, match="unknown arguments: n_predict; accepted: temperature, top_p"):
        llm.chat(HELLO, n_predict=3)
    with pytest.raises(ValueError, match="unknown arguments: n_predict"):
        llm.stream_complete("hello", n_predict=3)
    with pytest.raises(ValueError, match="temperature is 11"):
        type(llm)(temperature=11)
    with pytest.raises(ValueError, match="give a list of strings"):
        llm.chat(HELLO, stop="END")


async def test_errors_reach_the_caller(toy: Path, tmp_path: Path) -> None:
    for llm in (MiniCPM(model=tmp_path / "none"), MiniCPMLLM(model=tmp_path / "none")):
        with pytest.raises(FileNotFoundError, match="no folder"):
            llm.chat(HELLO)
        with pytest.raises(FileNotFoundError, match="no folder"):
            await llm.astream_complete("hello")
    with pytest.raises(ValueError, match="api_key goes with base_url"):
        MiniCPM(model=toy, api_key="x").complete("hello")
    with pytest.raises(MemoryError, match="what helps"):
        MiniCPM(model=toy, memory_limit="1MB").complete("hello")
    llm = MiniCPM(model=toy)
    with pytest.raises(ValueError, match="context window 512"):
        await llm.achat([ChatMessage(role="user", content="x" * 2000)])
    with pytest.raises(ValueError, match="context window 512"):
        [r async for r in await llm.astream_chat([ChatMessage(role="user", content="x" * 2000)])]


def test_a_closed_engine_is_loaded_again(tmp_path: Path) -> None:
    from tests.toy import write_llama

    llm = MiniCPM(model=write_llama(tmp_path / "own"), temperature=0, max_tokens=4)
    first = llm.complete("hello")
    llm.load_engine().close()
    assert llm.complete("hello") == first


def test_every_role_and_block_is_converted_and_nothing_changed() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    history = [
        ChatMessage(role="developer", content="rule"),
        ChatMessage(role="user", blocks=[TextBlock(text="a"), TextBlock(text="b")]),
        ChatMessage(role="model", blocks=[ThinkingBlock(content="hm"), TextBlock(text="c")]),
        ChatMessage(role="chatbot", blocks=[ToolCallBlock(tool_call_id="7", tool_name="add", tool_kwargs={"a": 1})]),
        ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [call]}),
        ChatMessage(role="tool", content="2", additional_kwargs={"tool_call_id": "7", "name": "add"}),
        ChatMessage(role="function", content="3"),
    ]
    before = [message.model_dump() for message in history]
    parsed = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    assert to_messages(history) == [
        {"role": "system", "content": "rule"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "c", "reasoning_content": "hm"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "7", **parsed}]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", **parsed}]},
        {"role": "tool", "content": "2", "tool_call_id": "7", "name": "add"},
        {"role": "tool", "content": "3"},
    ]
    assert [message.model_dump() for message in history] == before
    assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}


def test_calling_does_not_change_the_history(toy: Path) -> None:
    llm = MiniCPM(model=toy, max_tokens=2, system_prompt="Be brief.")
    history = [ChatMessage(role="user", content="hello")]
    before = [message.model_dump() for message in history]
    llm.chat(history)
    list(llm.stream_chat(history))
    assert [message.model_dump() for message in history] == before


def test_pictures_and_unknown_blocks_are_refused(toy: Path) -> None:
    llm = MiniCPM(model=toy, max_tokens=2)
    picture = ChatMessage(role="user", blocks=[TextBlock(text="What?"), ImageBlock(image=b"iVBORw0KGgo=")])
    with pytest.raises(ValueError, match="reads text only"):
        llm.chat([picture])
    with pytest.raises(ValueError, match="block of type 'audio'; accepted: text, image, video, document, thinking"):
        llm.chat([ChatMessage(role="user", blocks=[AudioBlock(audio=b"abcd")])])
    with pytest.raises(ValueError, match="cannot be read"):
        llm.chat([ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": ["add(1)"]})])


def test_tokens_are_counted_with_the_models_tokenizer(toy: Path, engine: Engine) -> None:
    llm = MiniCPM(model=toy)
    assert llm.tokenize("hello 你好") == engine.tokenizer.encode("hello 你好", add_special_tokens=False)
    assert llm.count_tokens("hello 你好") == len(llm.tokenize("hello 你好"))
    assert llm.count_tokens(HELLO) == engine.count_tokens(PLAIN) > llm.count_tokens("hello 你好")
