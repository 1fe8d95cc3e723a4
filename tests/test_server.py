"""`base_url=`: requests in OpenAI's form, answers as chunks, and what happens when a server fails."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core import Sampling
from minicpm_core.checkpoints import DEMO
from minicpm_core.server import engine as server_engine
from tests.scripted_server import Reply, Script, scripted, text_events

pytest.importorskip("openai", reason="the server extra is not installed")
pytestmark = pytest.mark.enable_socket

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLOCK = {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}}


def connect(script: Script, **options: Any) -> minicpm_core.Engine:
    return minicpm_core.load("m", base_url=script.url, **options)


def call_events(*pieces: tuple[int, str | None, str], finish: str = "tool_calls") -> list[dict[str, Any]]:
    """Events of calls: (index, name in the first piece, fragment of the arguments)."""
    calls = [
        {"index": n, "id": f"id{n}" if name else None, "function": {"name": name, "arguments": text}}
        for n, name, text in pieces
    ]
    events = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls]
    return [*events, *text_events(finish=finish)]


def test_an_answer_streams_and_adds_up() -> None:
    with scripted(Reply(text_events("Hel", "lo", finish="length"))) as script, connect(script) as engine:
        pieces = list(engine.stream(HELLO))
        assert [piece.content for piece in pieces] == ["Hel", "lo", ""]
        whole = engine.generate(
            HELLO, sampling=Sampling(temperature=0.5, top_k=7, seed=3, max_new_tokens=9), stop=["."]
        )
        assert (whole.content, whole.finish_reason) == ("Hello", "length")
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.cached_tokens) == (7, 3, 5)
        first, second = script.bodies
        assert first == {
            "path": "/v1/chat/completions",
            "model": "m",
            "messages": HELLO,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        asked = {"temperature": 0.5, "top_k": 7, "seed": 3, "max_tokens": 9, "stop": ["."]}
        assert {key: second[key] for key in asked} == asked


async def test_every_way_of_asking_gives_the_same() -> None:
    with scripted(Reply(text_events("Hi"))) as script, connect(script) as engine:
        assert (await engine.agenerate(HELLO)).content == "Hi"
        assert [c.content async for c in engine.astream(HELLO)] == ["Hi", ""]
        assert [answer.content for answer in engine.generate_batch([HELLO] * 3)] == ["Hi"] * 3
        assert [answer.content for answer in await engine.agenerate_batch([HELLO] * 3)] == ["Hi"] * 3


def test_a_text_is_completed_as_it_stands() -> None:
    events = [{"choices": [{"index": 0, "text": " a time", "finish_reason": "length"}]}]
    with scripted(Reply(events)) as script, connect(script) as engine:
        answer = engine.generate("Once upon", sampling=Sampling(max_new_tokens=2))
        assert (answer.content, answer.finish_reason) == (" a time", "length")
        assert script.bodies[0]["path"] == "/v1/completions"
        assert script.bodies[0]["prompt"] == "Once upon"


def test_reasoning_comes_apart_in_both_forms() -> None:
    own = [{"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}, *text_events("Yes")]
    for reply in (Reply(own), Reply(text_events("<thi", "nk>hm</think>", "\n\nYes"))):
        with scripted(reply) as script, connect(script) as engine:
            answer = engine.generate(HELLO, enable_thinking=True)
            assert (answer.reasoning, answer.content) == ("hm", "Yes")
            assert script.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}


def test_calls_are_read_and_checked() -> None:
    good = call_events((0, "weather", '{"ci'), (0, None, 'ty": "Rome"}'), (1, "clock", "{}"))
    with scripted(Reply(good)) as script, connect(script) as engine:
        answer = engine.generate(HELLO, tools=[WEATHER, CLOCK], tool_choice="any", parallel_tool_calls=False)
        assert [(c.id, c.name, c.arguments, c.error) for c in answer.tool_calls] == [
            ("id0", "weather", {"city": "Rome"}, None),
            ("id1", "clock", {}, None),
        ]
        assert answer.finish_reason == "tool_calls"
        assert script.bodies[0]["tool_choice"] == "required"
        assert script.bodies[0]["parallel_tool_calls"] is False
        assert script.bodies[0]["tools"][0] == {"type": "function", "function": WEATHER}
        engine.generate(HELLO, tools=[WEATHER, CLOCK], tool_choice="clock")
        assert script.bodies[1]["tool_choice"] == {"type": "function", "function": {"name": "clock"}}
        engine.generate(HELLO, tools=[WEATHER], tool_choice="none")
        assert "tools" not in script.bodies[2]


@pytest.mark.parametrize(
    ("events", "error"),
    [
        (call_events((0, "weather", '{"city": "Ro'), finish="length"), "cut off before its end"),
        (call_events((0, "weather", '{"city": 3}')), "city: 3 is not of type 'string'"),
        (call_events((0, "flood", "{}")), "there is no tool 'flood'"),
        (call_events((0, "weather", "[]")), "the arguments are no JSON object"),
    ],
)
def test_broken_calls_are_errors(events: list[dict[str, Any]], error: str) -> None:
    with scripted(Reply(events)) as script, connect(script) as engine:
        answer = engine.generate(HELLO, tools=[WEATHER])
        assert [call.error for call in answer.tool_calls] == [error]
        assert answer.finish_reason != "tool_calls"


def test_history_pictures_and_schemas_are_written_as_openai_does() -> None:
    from PIL import Image

    history = [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (3, 2), "red")}, "What?"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "a", "function": {"name": "weather", "arguments": {"city": "東京"}}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
    ]
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    with scripted(Reply(text_events("{}"))) as script, connect(script) as engine:
        engine.generate(history, response_schema=schema, logprobs=2)
        body = script.bodies[0]
        picture, text = body["messages"][0]["content"]
        assert text == {"type": "text", "text": "What?"}
        content = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(content)).getpixel((0, 0)) == (255, 0, 0)
        call = body["messages"][1]["tool_calls"][0]
        assert (call["id"], json.loads(call["function"]["arguments"])) == ("a", {"city": "東京"})
        assert body["messages"][2] == {"role": "tool", "content": "sunny", "tool_call_id": "a"}
        assert body["response_format"]["json_schema"] == {"name": "answer", "schema": schema, "strict": True}
        assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
        assert engine.count_tokens(history) > 640


@pytest.mark.parametrize("first", [Reply(status=429), Reply(status=503), Reply(broken=True), Reply(text_events()[:0])])
def test_what_failed_before_any_text_is_asked_again(first: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(first, Reply(text_events("late"))) as script, connect(script) as engine:
        assert engine.generate(HELLO).content == "late"
        assert len(script.bodies) == 2


def test_nothing_is_asked_twice_after_text_came() -> None:
    with scripted(Reply(text_events("half", "way")[:1], broken=True)) as script, connect(script) as engine:
        pieces = []
        with pytest.raises(ConnectionError, match="not asked again, since a part of the answer was delivered"):
            pieces += [pieces.append(piece.content) for piece in engine.stream(HELLO)]
        assert pieces == ["half"]
        assert len(script.bodies) == 1


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (400, ValueError, "answered 400"),
        (401, PermissionError, "give the server's key as api_key"),
        (404, ValueError, "is 'm' the model's name there"),
        (500, ConnectionError, "answered 500"),
    ],
)
def test_errors_have_types_and_say_what_helps(status: int, kind: type[Exception], sentence: str) -> None:
    with scripted(Reply(status=status)) as script, connect(script, api_key="secret") as engine:
        with pytest.raises(kind, match=sentence) as caught:
            engine.generate(HELLO)
        assert "secret" not in str(caught.value)
        assert len(script.bodies) == (1 + server_engine.RETRIES if status == 500 else 1)
        assert set(script.keys) == {"Bearer secret"}


def test_a_place_where_no_server_listens_is_told_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_engine, "RETRIES", 0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with minicpm_core.load("m", base_url=url) as engine, pytest.raises(ConnectionError) as caught:
            engine.generate(HELLO)
    assert re.search(
        r"APIConnectionError: .*(refused|attempts failed).*; check that the server runs there", str(caught.value)
    )


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_engine, "READ_SECONDS", 0.2)
    monkeypatch.setattr(server_engine, "RETRIES", 0)
    with scripted(Reply(text_events("x"), pause=3.0)) as script, connect(script) as engine:
        with pytest.raises((TimeoutError, ConnectionError)):
            engine.generate(HELLO)


async def test_leaving_a_stream_closes_the_request() -> None:
    slow = Reply(text_events(*["x"] * 400), pause=0.01)
    with scripted(slow) as script, connect(script) as engine:
        with closing(engine.stream(HELLO)) as stream:  # type: ignore[type-var]
            next(stream)
        assert await asyncio.to_thread(script.left.wait, 3)
        script.left.clear()
        async with aclosing(engine.astream(HELLO)) as chunks:  # type: ignore[type-var]
            await anext(chunks)
        assert await asyncio.to_thread(script.left.wait, 3)
        script.left.clear()
        task = asyncio.create_task(engine.agenerate(HELLO))
        while len(script.bodies) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(script.left.wait, 3)


async def test_requests_run_side_by_side() -> None:
    with scripted(Reply(text_events("a", "b"), pause=0.1)) as script, connect(script) as engine:
        await asyncio.gather(*(engine.agenerate(HELLO) for _ in range(5)))
        assert script.most >= 4
        script.most = 0
        engine.generate_batch([HELLO] * 6, batch_size=2)
        assert script.most == 2


def test_what_a_server_cannot_do_is_refused() -> None:
    with scripted(Reply(text_events("x"))) as script, connect(script) as engine:
        with pytest.raises(ValueError, match="takes no Lark grammar"):
            engine.generate(HELLO, grammar='start: "a"')
        with pytest.raises(ValueError, match="token ids are not known"):
            engine.tokenize("x")
        with pytest.raises(ValueError, match="give a list of strings"):
            engine.generate(HELLO, stop=".")
        with pytest.raises(ValueError, match="adapters"):
            engine.set_adapter("x")
        assert script.bodies == []
    with pytest.raises(RuntimeError, match="is closed"):
        engine.generate(HELLO)
    with pytest.raises(ValueError, match="accepted: an http"):
        minicpm_core.load("m", base_url="localhost:8000")
    with pytest.raises(ValueError, match="quantization: the weights are loaded behind base_url"):
        minicpm_core.load("m", base_url="http://localhost:1/v1", quantization="int4")


async def test_the_frameworks_classes_ask_the_server() -> None:
    from langchain_minicpm import ChatMiniCPM, MiniCPMLLM
    from llamaindex_minicpm import MiniCPM

    with scripted(Reply(text_events("Hi"))) as script:
        chat = ChatMiniCPM(model="m", base_url=script.url, api_key="k", max_tokens=5)
        assert chat.invoke("Hello").text == "Hi"
        assert (await chat.ainvoke("Hello")).usage_metadata["input_tokens"] == 7
        assert [answer.text for answer in chat.batch(["a", "b"])] == ["Hi", "Hi"]
        assert chat.get_num_tokens("abcdef") == 2
        assert MiniCPMLLM(model="m", base_url=script.url).invoke("Hello") == "Hi"
        llm = MiniCPM(model="m", base_url=script.url)
        assert str(llm.complete("Hello")) == "Hi"
        assert llm.metadata.context_window == 4096
        assert llm.metadata.num_output == 1024
        assert [r.delta async for r in await llm.astream_complete("Hello")] == ["Hi", ""]
        assert {body["model"] for body in script.bodies} == {"m"}


@pytest.fixture(scope="module")
def transformers_serve() -> Iterator[str]:
    """`transformers serve`, a real server, on a free port."""
    pytest.importorskip("fastapi", reason="fastapi is not installed, which `transformers serve` needs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"], env=os.environ | {"HF_HUB_OFFLINE": "1"}, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 180
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except urllib.error.HTTPError:
                    break
                except OSError:
                    assert process.poll() is None, "the server ended"
                    assert time.monotonic() < deadline, "the server did not start"
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


@pytest.mark.skipif(not (DEMO / "model.safetensors").is_file(), reason="the demo checkpoint is not built")
async def test_transformers_serve_answers_as_the_engine_does(transformers_serve: str) -> None:
    greedy = Sampling(temperature=0.0, max_new_tokens=40)
    with minicpm_core.load("demo") as own, minicpm_core.load(str(Path(DEMO)), base_url=transformers_serve) as engine:
        expected = own.generate(HELLO, sampling=greedy)
        answer = engine.generate(HELLO, sampling=greedy)
        assert (answer.content, answer.finish_reason) == (expected.content, expected.finish_reason)
        assert (answer.usage and answer.usage.prompt_tokens) == (expected.usage and expected.usage.prompt_tokens)
        assert "".join([c.content async for c in engine.astream(HELLO, sampling=greedy)]) == expected.content
    with minicpm_core.load("no-such-model", base_url=transformers_serve) as missing:
        with pytest.raises(ConnectionError, match="answered 500"):
            missing.generate(HELLO)
