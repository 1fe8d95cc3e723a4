"""ChatMiniCPM: every way to call it gives the engine's own answer, and nothing asked for is dropped."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import ConfigurableField
from PIL import Image
from pydantic import ValidationError

from langchain_minicpm import ChatMiniCPM, MiniCPMLLM
from minicpm_core import Chunk, Engine, Sampling, Usage
from tests.langchain.conftest import Recorder, ScriptedEngine, add
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

QUESTION = "What is the warranty?"
MESSAGES = [{"role": "user", "content": QUESTION}]


async def ask_all_ways(chat: ChatMiniCPM, question: Any = QUESTION, **options: Any) -> list[AIMessage]:
    return [
        chat.invoke(question, **options),
        add(list(chat.stream(question, **options))),
        await chat.ainvoke(question, **options),
        add([chunk async for chunk in chat.astream(question, **options)]),
        chat.invoke(question, stream=True, **options),
        chat.batch([question], **options)[0],
        (await chat.abatch([question], **options))[0],
    ]


def greedy_text(engine: Engine, tokens: int = 16) -> str:
    from minicpm_core import Sampling

    return engine.generate(MESSAGES, sampling=Sampling(temperature=0, max_new_tokens=tokens)).content


async def test_every_way_of_asking_gives_the_engines_answer(chat: ChatMiniCPM, engine: Engine) -> None:
    expected = greedy_text(engine)
    answers = await ask_all_ways(chat)
    assert [answer.content for answer in answers] == [expected] * 7
    assert QUESTION not in expected


async def test_usage_and_metadata_are_exact_in_every_way(chat: ChatMiniCPM, engine: Engine, toy: Path) -> None:
    prompt = engine.count_tokens(MESSAGES)
    greedy_text(engine)
    for answer in await ask_all_ways(chat):
        assert answer.usage_metadata == {
            "input_tokens": prompt,
            "output_tokens": 16,
            "total_tokens": prompt + 16,
            "input_token_details": {"cache_read": prompt},  # asked before
            "output_token_details": {"reasoning": 0},
        }
        assert answer.response_metadata == {
            "model_name": str(toy),
            "model_provider": "minicpm",
            "finish_reason": "length",
        }


def test_usage_model_name_and_position_are_on_the_last_chunk_only(chat: ChatMiniCPM) -> None:
    *others, last = chat.stream(QUESTION)
    assert len(others) > 3
    assert last.chunk_position == "last"
    assert last.usage_metadata["output_tokens"] == 16
    assert all(c.usage_metadata is None and not c.chunk_position for c in others)
    assert [c.response_metadata for c in others] == [{"model_provider": "minicpm"}] * len(others)


async def test_stop_text_is_cut_exactly_wherever_it_is_given(chat: ChatMiniCPM, engine: Engine, toy: Path) -> None:
    text = greedy_text(engine)
    stop = text[5:9]
    expected = text[: text.find(stop)]
    for answer in await ask_all_ways(chat, stop=[stop]):
        assert (answer.content, answer.response_metadata["finish_reason"]) == (expected, "stop")
    by_constructor = ChatMiniCPM(model=toy, temperature=0, max_tokens=16, stop=[stop])
    assert by_constructor.invoke(QUESTION).content == expected
    assert by_constructor.invoke(QUESTION, stop=[]).content == text


def test_temperature_and_seed_change_the_answer(chat: ChatMiniCPM) -> None:
    greedy = chat.invoke(QUESTION).content
    first, again, other = (chat.invoke(QUESTION, temperature=3.0, seed=seed).content for seed in (1, 1, 2))
    assert first == again
    assert len({greedy, first, other}) == 3


def test_every_sampling_value_reaches_the_engine() -> None:
    values = {"temperature": 0.5, "top_p": 0.6, "top_k": 7, "repetition_penalty": 1.1, "seed": 8}
    engine = ScriptedEngine(Chunk("x", finish_reason="stop", usage=Usage(1, 1)))
    model = ChatMiniCPM(engine=engine, **values, max_tokens=9, stop=["a"], enable_thinking=False)
    model.invoke("Hi")
    model.invoke("Hi", temperature=0, max_tokens=3, stop=["b"], enable_thinking=True, top_k=1)
    (_, first), (_, second) = engine.asked
    sampling = first["sampling"]
    assert {name: getattr(sampling, name) for name in values} == values
    assert (sampling.max_new_tokens, first["stop"], first["enable_thinking"]) == (9, ["a"], False)
    changed = second["sampling"]
    assert (changed.temperature, changed.max_new_tokens, changed.top_k, changed.top_p) == (0, 3, 1, 0.6)
    assert (second["stop"], second["enable_thinking"]) == (["b"], True)


async def test_unknown_arguments_of_a_call_are_refused_by_name(chat: ChatMiniCPM) -> None:
    with pytest.raises(TypeError, match=r"tempratur.*accepts: stop, temperature, top_p"):
        chat.invoke(QUESTION, tempratur=1)
    with pytest.raises(TypeError, match="logit_bias"):
        await chat.ainvoke(QUESTION, logit_bias={})


def test_unknown_and_impossible_constructor_arguments_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"load_in_4bit\s+Extra inputs"):
        ChatMiniCPM(load_in_4bit=True)
    with pytest.raises(ValidationError, match="temperature is -1"):
        ChatMiniCPM(temperature=-1)
    with pytest.raises(ValidationError, match="timeout"):
        ChatMiniCPM(timeout=0)


async def test_what_cannot_be_loaded_is_told_at_the_first_call(tmp_path: Path, toy: Path) -> None:
    model = ChatMiniCPM(model=tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="missing"):
        model.invoke("Hi")
    with pytest.raises(FileNotFoundError, match="missing"):
        await model.ainvoke("Hi")
    with pytest.raises(ValueError, match="api_key goes with base_url"):
        ChatMiniCPM(model=toy, api_key="sk-1").invoke("Hi")


async def test_errors_reach_the_caller_and_the_callbacks(chat: ChatMiniCPM, recorder: Recorder) -> None:
    config = {"callbacks": [recorder]}
    too_long = "word " * 2000
    with pytest.raises(ValueError, match="context window"):
        chat.invoke(too_long, config)
    with pytest.raises(ValueError, match="context window"):
        async for _ in chat.astream(too_long, config):
            pass
    assert [type(error) for error in recorder.errors] == [ValueError, ValueError]


def test_an_image_for_a_text_model_is_refused(chat: ChatMiniCPM) -> None:
    picture = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}
    with pytest.raises(ValueError, match="reads text only"):
        chat.invoke([HumanMessage([{"type": "text", "text": "What is this?"}, picture])])


async def test_tokens_are_reported_once(chat: ChatMiniCPM, engine: Engine) -> None:
    text = greedy_text(engine)
    for ask in (
        lambda config: list(chat.stream(QUESTION, config)),
        lambda config: chat.invoke(QUESTION, config, stream=True),
    ):
        recorder = Recorder()
        ask({"callbacks": [recorder]})
        assert "".join(recorder.tokens) == text
        assert len(recorder.ends) == len(recorder.started) == 1
    recorder = Recorder()
    pieces = [c.content async for c in chat.astream(QUESTION, {"callbacks": [recorder]})]
    assert recorder.tokens == pieces
    recorder = Recorder()
    chat.invoke(QUESTION, {"callbacks": [recorder]})
    assert recorder.tokens == []


def count_passes(engine: Engine) -> tuple[list[int], Any]:
    passes: list[int] = []
    return passes, engine.model.register_forward_hook(lambda *_: passes.append(1))


def test_leaving_a_stream_stops_the_model(chat: ChatMiniCPM, engine: Engine) -> None:
    passes, hook = count_passes(engine)
    with hook:
        stream = chat.stream(QUESTION, max_tokens=400)
        next(stream)
        stream.close()
        chat.invoke(QUESTION, max_tokens=1)  # waits until the model is free
    assert len(passes) < 300


async def test_leaving_an_async_stream_stops_the_model(chat: ChatMiniCPM, engine: Engine) -> None:
    passes, hook = count_passes(engine)
    with hook:
        async for _ in chat.astream(QUESTION, max_tokens=400):
            break
        await chat.ainvoke(QUESTION, max_tokens=1)
    assert len(passes) < 300


async def test_cancelling_a_task_stops_the_model(chat: ChatMiniCPM, engine: Engine) -> None:
    started, loop = asyncio.Event(), asyncio.get_running_loop()
    passes, hook = count_passes(engine)

    def tell(*_: Any) -> None:
        loop.call_soon_threadsafe(started.set)

    with hook, engine.model.register_forward_hook(tell):
        task = asyncio.create_task(chat.ainvoke(QUESTION, max_tokens=400))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await chat.ainvoke(QUESTION, max_tokens=1)
    assert len(passes) < 300


async def test_the_event_loop_runs_while_the_model_loads_and_works(
    chat: ChatMiniCPM, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def wait_for_loop(*_: Any, **__: Any) -> None:
        assert gate.wait(30), "the event loop was blocked"
        gate.clear()

    async def open_gate() -> None:
        while True:
            await asyncio.sleep(0.001)
            gate.set()

    def load(**_: Any) -> Engine:
        wait_for_loop()
        return engine

    monkeypatch.setattr("minicpm_core.shared_engine", load)  # first: it looks in the registry what it puts back
    monkeypatch.setattr("minicpm_core.registry.shared_engine", load)
    opener = asyncio.create_task(open_gate())
    with engine.model.register_forward_pre_hook(wait_for_loop):
        answer = await chat.ainvoke(QUESTION, max_tokens=3)
    opener.cancel()
    assert answer.usage_metadata["output_tokens"] == 3


def test_a_batch_keeps_its_order(chat: ChatMiniCPM) -> None:
    questions = [f"Question {n}?" for n in range(6)]
    single = [chat.invoke(question).content for question in questions]
    assert len(set(single)) == 6
    assert [answer.content for answer in chat.batch(questions)] == single


async def test_a_call_can_ask_another_model(chat: ChatMiniCPM, toy: Path, other_toy: Path) -> None:
    other = ChatMiniCPM(model=other_toy, temperature=0, max_tokens=16).invoke(QUESTION).content
    assert other != chat.invoke(QUESTION).content
    for answer in await ask_all_ways(chat, model=str(other_toy)):
        assert (answer.content, answer.response_metadata["model_name"]) == (other, str(other_toy))


def test_same_arguments_share_one_engine(chat: ChatMiniCPM, llm: MiniCPMLLM, toy: Path, other_toy: Path) -> None:
    assert chat.load_engine() is llm.load_engine()
    assert ChatMiniCPM(model_name=str(toy), temperature=1).load_engine() is chat.load_engine()
    assert ChatMiniCPM(model=other_toy).load_engine() is not chat.load_engine()


def test_a_given_engine_is_used_and_does_not_go_with_loading_arguments(engine: Engine, toy: Path) -> None:
    model = ChatMiniCPM(engine=engine, temperature=0, max_tokens=16)
    assert model.model == str(toy)
    assert model.invoke(QUESTION).content == greedy_text(engine)
    with pytest.raises(ValidationError, match="leave out quantization"):
        ChatMiniCPM(engine=engine, quantization="int4")


def test_reasoning_is_apart_from_the_answer() -> None:
    engine = ScriptedEngine(
        Chunk(reasoning="Two "),
        Chunk(reasoning="years."),
        Chunk(content="Two years"),
        Chunk(".", finish_reason="stop", usage=Usage(20, 9, cached_tokens=5, reasoning_tokens=4)),
    )
    expected = [{"type": "reasoning", "reasoning": "Two years."}, {"type": "text", "text": "Two years."}]
    model = ChatMiniCPM(engine=engine)
    for answer in (model.invoke("Hi"), add(list(model.stream("Hi")))):
        assert answer.content == "Two years."
        assert answer.additional_kwargs == {"reasoning_content": "Two years."}
        assert answer.content_blocks == expected
        assert answer.usage_metadata["input_token_details"] == {"cache_read": 5}
        assert answer.usage_metadata["output_token_details"] == {"reasoning": 4}
    standard = ChatMiniCPM(engine=engine, output_version="v1")
    assert standard.invoke("Hi").content == expected
    assert [{k: b[k] for k in b if k != "index"} for b in add(list(standard.stream("Hi"))).content] == expected


def test_a_real_model_in_thinking_mode_reasons(chat: ChatMiniCPM) -> None:
    answer = chat.invoke(QUESTION, enable_thinking=True)
    assert answer.additional_kwargs["reasoning_content"] != ""
    assert answer.usage_metadata["output_token_details"] == {"reasoning": 16}
    assert answer.content == ""


def test_a_slow_answer_is_a_timeout_error(toy: Path) -> None:
    with pytest.raises(TimeoutError, match="timeout=1e-09 seconds"):
        ChatMiniCPM(model=toy, timeout=1e-9).invoke(QUESTION)
    assert ChatMiniCPM(model=toy, timeout=600, max_tokens=2).invoke(QUESTION).usage_metadata["output_tokens"] == 2


def test_the_cache_tells_settings_apart(toy: Path) -> None:
    cache = InMemoryCache()
    greedy, sampled, longer = (
        ChatMiniCPM(model=toy, cache=cache, temperature=temperature, seed=0, max_tokens=tokens).invoke(QUESTION)
        for temperature, tokens in ((0, 8), (3.0, 8), (0, 9))
    )
    assert len({greedy.content, sampled.content, longer.content}) == 3
    again = ChatMiniCPM(model=toy, cache=cache, temperature=0, seed=0, max_tokens=8).invoke(QUESTION)
    assert again.content == greedy.content
    assert len(cache._cache) == 3


def test_identifying_params_hold_every_knob_and_no_secret() -> None:
    params = ChatMiniCPM(model="a/b", api_key="secret", top_k=3, stop=["x"], enable_thinking=True)._identifying_params
    assert {"model": "a/b", "top_k": 3, "stop": ["x"], "enable_thinking": True, "quantization": "auto"}.items() <= (
        params.items()
    )
    assert "secret" not in str(params)
    assert {"adapter", "revision", "context_window", "seed", "max_tokens", "memory_limit"} <= params.keys()


def test_tracing_parameters_follow_the_call() -> None:
    model = ChatMiniCPM(model="a/b", temperature=0.5, max_tokens=7, stop=["x"])
    assert model._get_ls_params() == {
        "ls_model_type": "chat",
        "ls_provider": "minicpm",
        "ls_model_name": "a/b",
        "ls_temperature": 0.5,
        "ls_max_tokens": 7,
        "ls_stop": ["x"],
    }
    changed = model._get_ls_params(stop=["y"], model="c/d", temperature=0, max_tokens=8)
    assert (changed["ls_model_name"], changed["ls_temperature"], changed["ls_max_tokens"]) == ("c/d", 0, 8)
    assert changed["ls_stop"] == ["y"]


def test_the_profile_is_known_before_anything_is_loaded(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicpm_core.registry.shared_engine", None)
    profile = ChatMiniCPM(model=toy).profile
    assert (profile["max_input_tokens"], profile["tool_calling"], profile["reasoning_output"]) == (512, True, True)
    assert ChatMiniCPM(model=toy, context_window=256).profile["max_input_tokens"] == 256
    assert ChatMiniCPM(model="not/downloaded").profile is None


def test_the_profile_tells_agents_what_the_model_can_do(toy: Path, tmp_path: Path) -> None:
    profile = ChatMiniCPM(model=toy).profile
    for ability in ("tool_calling", "tool_choice", "tool_call_streaming", "structured_output", "reasoning_output"):
        assert profile[ability] is True, ability
    assert profile["image_tool_message"] is False
    assert ChatMiniCPM(model=str(write_native(tmp_path, "minicpmv4_6"))).profile["image_tool_message"] is True


def test_the_cache_tells_tools_and_schemas_apart(chat: ChatMiniCPM) -> None:
    schema = {"title": "A", "type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    other = schema | {"properties": {"a": {"type": "null"}}}
    cached = ChatMiniCPM(engine=chat.load_engine(), temperature=0, max_tokens=64, cache=InMemoryCache())
    for _ in range(2):
        assert cached.with_structured_output(schema).invoke(QUESTION) in ({"a": True}, {"a": False})
        assert cached.with_structured_output(other).invoke(QUESTION) == {"a": None}
        call = cached.bind_tools([schema], tool_choice="any", parallel_tool_calls=False).invoke(QUESTION)
        assert call.tool_calls[0]["name"] == "A"
    assert len(cached.cache._cache) == 3


def test_tokens_are_counted_by_the_models_own_tokenizer_and_template(chat: ChatMiniCPM, engine: Engine) -> None:
    text = "保修期为两年。 The lamp."
    ids = engine.tokenizer.encode(text, add_special_tokens=False)
    assert chat.get_token_ids(text) == ids
    assert chat.get_num_tokens(text) == len(ids)
    counted = chat.get_num_tokens_from_messages([HumanMessage(QUESTION)])
    assert counted == chat.invoke(QUESTION, max_tokens=1).usage_metadata["input_tokens"]


def test_the_model_can_be_made_configurable(chat: ChatMiniCPM, engine: Engine) -> None:
    configurable = chat.configurable_fields(max_tokens=ConfigurableField(id="tokens"))
    answer = configurable.invoke(QUESTION, {"configurable": {"tokens": 3}})
    assert answer.usage_metadata["output_tokens"] == 3


def test_package_versions_are_in_the_trace() -> None:
    assert "minicpm-integrations" in ChatMiniCPM(model="a/b").metadata["lc_versions"]


@pytest.mark.parametrize("version", ["2.6", "minicpmv4_6"])
def test_a_model_that_sees_takes_pictures_and_says_so(version: str, tmp_path: Path) -> None:
    native = version.startswith("minicpmv")
    folder = write_native(tmp_path, version) if native else write_minicpmv(tmp_path, version)
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    model = ChatMiniCPM(model=str(folder), temperature=0, max_tokens=6)
    assert model.profile is not None
    assert model.profile["image_inputs"] is True
    assert model.profile["max_input_tokens"] == model.load_engine().context_window
    text = {"type": "text", "text": "what?"}
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    block = {"type": "image", "base64": data, "mime_type": "image/png"}
    answers = [model.invoke([HumanMessage([part, text])]) for part in (url, block)]
    engine = model.load_engine()
    expected = engine.generate(
        [{"role": "user", "content": [{"type": "image", "image": buffer.getvalue()}, text]}],
        sampling=Sampling(temperature=0, max_new_tokens=6),
    )
    assert expected.usage is not None
    assert [answer.content for answer in answers] == [expected.content] * 2
    assert [a.usage_metadata["input_tokens"] for a in answers if a.usage_metadata] == [expected.usage.prompt_tokens] * 2
