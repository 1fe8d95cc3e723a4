"""`base_url=` against llama-cpp-python's server, which answers from a GGUF file of the toy checkpoint."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core import Engine, Sampling
from tests.toy_gguf import convert

pytest.importorskip("openai", reason="the server extra is not installed")
pytestmark = pytest.mark.enable_socket

PYTHON = os.environ.get("MINICPM_LLAMA_CPP_PYTHON", sys.executable)
HELLO = [{"role": "user", "content": "Hello"}]
PLAIN: dict[str, Any] = {"top_k": 0, "repetition_penalty": 1.0}  # the server has others of its own
GREEDY = Sampling(temperature=0.0, max_new_tokens=40, **PLAIN)
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
CITY |= {"additionalProperties": False}
WEATHER = {"name": "weather", "description": "Tell the weather.", "parameters": CITY}


@pytest.fixture(scope="module")
def url(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python -m llama_cpp.server` on a free port."""
    needed = "import llama_cpp, fastapi, uvicorn, sse_starlette, starlette_context, pydantic_settings"
    if subprocess.run([PYTHON, "-c", needed], capture_output=True).returncode:
        pytest.skip(
            f"{PYTHON} has no llama-cpp-python with its server (it is compiled for many minutes); "
            "MINICPM_LLAMA_CPP_PYTHON names one that has"
        )
    file = convert(toy, tmp_path_factory.mktemp("gguf") / "toy.gguf")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = {"model": file, "model_alias": "toy", "host": "127.0.0.1", "port": port, "n_ctx": 512, "n_threads": 1}
    command = [PYTHON, "-m", "llama_cpp.server", *(f"--{name}={value}" for name, value in arguments.items())]
    command.append("--api_key=sesame")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 180
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/docs", timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, "the server ended"
                    assert time.monotonic() < deadline, "the server did not start"
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    with minicpm_core.load("toy", base_url=url, api_key="sesame") as engine:
        yield engine


def plain(text: str) -> str:
    """Return the letters of a text that one byte writes: the server leaves out what begins no whole character."""
    return "".join(character for character in text if character.isascii())


async def test_it_answers_as_the_engine_does(engine: Engine, toy: Path) -> None:
    with minicpm_core.load(str(toy), dtype="float32") as own:
        expected = own.generate(HELLO, sampling=GREEDY)
    answer = engine.generate(HELLO, sampling=GREEDY)
    assert len(plain(expected.content)) > 40
    assert (plain(answer.content), answer.finish_reason) == (plain(expected.content), "length")
    assert answer.usage is None  # it tells none while it streams
    pieces = [piece.content async for piece in engine.astream(HELLO, sampling=GREEDY)]
    assert len(pieces) > 10
    assert "".join(pieces) == answer.content
    completed = engine.generate("The quick", sampling=GREEDY)  # the server sets <s> before it
    assert (len(completed.content) > 10, completed.finish_reason) == (True, "length")
    stopped = engine.generate(HELLO, sampling=GREEDY, stop=["num"])
    assert (stopped.content, stopped.finish_reason) == (answer.content[: answer.content.index("num")], "stop")


def test_schemas_and_calls_are_constrained(engine: Engine) -> None:
    sampling = Sampling(temperature=1.5, max_new_tokens=100, **PLAIN)  # random weights would write anything
    for _ in range(3):
        answer = engine.generate(HELLO, sampling=sampling, response_schema=CITY)
        assert json.loads(answer.content)["city"] in ("Rome", "Oslo")
        answer = engine.generate(HELLO, sampling=sampling, tools=[WEATHER], tool_choice="weather")
        assert [(call.name, call.error) for call in answer.tool_calls] == [("weather", None)]
        assert (answer.tool_calls[0].arguments or {})["city"] in ("Rome", "Oslo")
        assert answer.finish_reason == "tool_calls"


def test_log_probabilities(engine: Engine) -> None:
    answer = engine.generate(HELLO, sampling=GREEDY, logprobs=2)
    assert len(answer.logprobs) > 10
    assert max(len(one.top) for one in answer.logprobs) == 2
    assert all(one.logprob <= 0 and one.token in {top.token for top in one.top} for one in answer.logprobs)


async def test_leaving_early_frees_the_server(engine: Engine) -> None:
    long = Sampling(temperature=0.0, max_new_tokens=450, **PLAIN)
    async with aclosing(engine.astream(HELLO, sampling=long)) as chunks:  # type: ignore[type-var]
        await anext(chunks)
    answer = await asyncio.wait_for(engine.agenerate(HELLO, sampling=GREEDY), 60)
    assert answer.finish_reason == "length"


async def test_both_frameworks(url: str) -> None:
    from llama_index.core.llms import ChatMessage

    from langchain_minicpm import ChatMiniCPM
    from llamaindex_minicpm import MiniCPM

    settings: dict[str, Any] = {"model": "toy", "base_url": url, "api_key": "sesame", "temperature": 0.0} | PLAIN
    chat, llm = ChatMiniCPM(max_tokens=20, **settings), MiniCPM(max_tokens=20, **settings)
    said = chat.invoke("Hello").text
    assert len(said) > 10
    assert "".join(piece.text for piece in chat.stream("Hello")) == said
    assert (await chat.ainvoke("Hello")).text == said
    assert llm.chat([ChatMessage("Hello")]).message.content == said
    assert [r.message.content async for r in await llm.astream_chat([ChatMessage("Hello")])][-1] == said
    structured = chat.bind(max_tokens=100).with_structured_output({"title": "City", **CITY})
    assert structured.invoke("Hello")["city"] in ("Rome", "Oslo")
    called = chat.bind_tools([{"type": "function", "function": WEATHER}], tool_choice="weather")
    (call,) = called.bind(max_tokens=100).invoke("Hello").tool_calls
    assert (call["name"], call["args"]["city"] in ("Rome", "Oslo")) == ("weather", True)


def test_a_wrong_key_is_told(url: str) -> None:
    with minicpm_core.load("toy", base_url=url, api_key="wrong") as stranger:
        with pytest.raises(PermissionError, match="give the server's key as api_key"):
            stranger.generate(HELLO)
