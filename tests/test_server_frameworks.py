"""`base_url=` through both frameworks, sync and async: what is asked, what comes back, and what failing servers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest

from minicpm_core.server import engine as server_engine
from tests.scripted_server import Reply, Script, scripted, text_events

pytest.importorskip("openai", reason="the server extra is not installed")
pytest.importorskip("langchain_core", reason="LangChain is not installed")
pytest.importorskip("llama_index.core", reason="LlamaIndex is not installed")
pytestmark = pytest.mark.enable_socket

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
THINKING = [{"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}, *text_events("Yes")]
TAGGED = text_events("<thi", "nk>hm</think>", "\n\nYes")
CALL = [
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}
    for call in (
        {"id": "c1", "function": {"name": "weather", "arguments": '{"ci'}},
        {"id": None, "function": {"name": None, "arguments": 'ty": "Rome"}'}},
    )
] + text_events(finish="tool_calls")


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


class LangChain:
    """The same questions to both frameworks."""

    def __init__(self, script: Script, **options: Any) -> None:
        from langchain_minicpm import ChatMiniCPM

        self.model = ChatMiniCPM(model="m", base_url=script.url, **options)

    def ask(self, prompt: Any = "Hello") -> Any:
        return self.model.invoke(prompt)

    async def aask(self, prompt: Any = "Hello") -> Any:
        return await self.model.ainvoke(prompt)

    def stream(self) -> Iterator[str]:
        yield from (piece.text for piece in self.model.stream("Hello"))

    async def astream(self) -> AsyncIterator[str]:
        async with aclosing(self.model.astream("Hello")) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece.text

    def read(self, answer: Any) -> tuple[str, str]:
        return answer.text, answer.additional_kwargs.get("reasoning_content", "")

    def count(self, answer: Any) -> tuple[int, int, int]:
        usage = answer.usage_metadata
        return usage["input_tokens"], usage["output_tokens"], usage["input_token_details"]["cache_read"]

    def call(self) -> tuple[str, Any]:
        (call,) = self.model.bind_tools([weather], tool_choice="weather").invoke("Weather in Rome?").tool_calls
        return call["name"], call["args"]

    async def acall(self) -> tuple[str, Any]:
        bound = self.model.bind_tools([weather], tool_choice="weather")
        (call,) = (await bound.ainvoke("Weather in Rome?")).tool_calls
        return call["name"], call["args"]

    def structure(self) -> Any:
        return self.model.with_structured_output({"title": "City", **CITY}).invoke("Where?")

    def show(self, picture: Any) -> None:
        self.ask([("human", [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}])])


class LlamaIndex:
    def __init__(self, script: Script, **options: Any) -> None:
        from llama_index.core.llms import ChatMessage

        from llamaindex_minicpm import MiniCPM

        self.model = MiniCPM(model="m", base_url=script.url, **options)
        self.hello = [ChatMessage("Hello")]

    def ask(self) -> Any:
        return self.model.chat(self.hello)

    async def aask(self) -> Any:
        return await self.model.achat(self.hello)

    def stream(self) -> Iterator[str]:
        with closing(self.model.stream_chat(self.hello)) as pieces:
            yield from (piece.delta or "" for piece in pieces)

    async def astream(self) -> AsyncIterator[str]:
        async with aclosing(await self.model.astream_chat(self.hello)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece.delta or ""

    def read(self, answer: Any) -> tuple[str, str]:
        thoughts = [block.content for block in answer.message.blocks if block.block_type == "thinking"]
        return answer.message.content, "".join(thoughts)

    def count(self, answer: Any) -> tuple[int, int, int]:
        usage = answer.raw["usage"]
        return usage["prompt_tokens"], usage["completion_tokens"], 5

    def call(self) -> tuple[str, Any]:
        from llama_index.core.tools import FunctionTool

        response = self.model.chat_with_tools([FunctionTool.from_defaults(weather)], "Weather?", tool_required=True)
        (call,) = self.model.get_tool_calls_from_response(response)
        return call.tool_name, call.tool_kwargs

    async def acall(self) -> tuple[str, Any]:
        from llama_index.core.tools import FunctionTool

        tools = [FunctionTool.from_defaults(weather)]
        response = await self.model.achat_with_tools(tools, "Weather?", tool_required=True)
        (call,) = self.model.get_tool_calls_from_response(response)
        return call.tool_name, call.tool_kwargs

    def structure(self) -> Any:
        from llama_index.core.prompts import PromptTemplate
        from pydantic import BaseModel

        class City(BaseModel):
            city: str

        return self.model.structured_predict(City, PromptTemplate("Where?")).model_dump()

    def show(self, picture: Any) -> None:
        import io

        from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

        data = io.BytesIO()
        picture.save(data, "PNG")
        self.model.chat([ChatMessage(blocks=[ImageBlock(image=data.getvalue()), TextBlock(text="What?")])])


both = pytest.mark.parametrize("framework", [LangChain, LlamaIndex])


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_engine, "FIRST_PAUSE", 0.01)


@both
async def test_streams_and_whole_answers_agree(framework: Any) -> None:
    with scripted(Reply(text_events("Hel", "lo"))) as script:
        chat = framework(script, max_tokens=9, stop=["."], temperature=0.5, top_k=3, repetition_penalty=1.1)
        assert [piece for piece in chat.stream() if piece] == ["Hel", "lo"]
        assert [piece async for piece in chat.astream() if piece] == ["Hel", "lo"]
        for answer in (chat.ask(), await chat.aask()):
            assert chat.read(answer) == ("Hello", "")
            assert chat.count(answer) == (7, 3, 5)
        asked = {"max_tokens": 9, "stop": ["."], "temperature": 0.5, "top_k": 3}
        asked |= {"repetition_penalty": 1.1, "repeat_penalty": 1.1, "model": "m"}
        assert len(script.bodies) == 4
        assert all({key: body[key] for key in asked} == asked for body in script.bodies)


@both
@pytest.mark.parametrize("events", [THINKING, TAGGED])
async def test_reasoning_in_both_forms(framework: Any, events: list[dict[str, Any]]) -> None:
    with scripted(Reply(events)) as script:
        chat = framework(script, enable_thinking=True)
        assert chat.read(chat.ask()) == chat.read(await chat.aask()) == ("Yes", "hm")
        assert {str(body["chat_template_kwargs"]) for body in script.bodies} == {"{'enable_thinking': True}"}


@both
async def test_tools(framework: Any) -> None:
    with scripted(Reply(CALL)) as script:
        chat = framework(script)
        assert chat.call() == await chat.acall() == ("weather", {"city": "Rome"})
        for body in script.bodies:
            assert [tool["function"]["name"] for tool in body["tools"]] == ["weather"]
            assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


@both
def test_schemas_in_the_form_that_the_server_knows(framework: Any) -> None:
    said = "body -> response_format -> type: Input should be 'text' or 'json_object'"
    for refusal in ([], [Reply(status=500, message=said)]):
        with scripted(*refusal, Reply(text_events('{"city": "Rome"}'))) as script:
            assert framework(script).structure() == {"city": "Rome"}
            forms = [body["response_format"] for body in script.bodies]
            assert forms[0]["type"] == "json_schema"
            assert forms[0]["json_schema"]["schema"]["properties"]["city"]["type"] == "string"
            if refusal:
                older = {"type": "json_object", "schema": forms[0]["json_schema"]["schema"]}
                assert forms[1:] == [older]


@both
def test_pictures(framework: Any) -> None:
    from PIL import Image

    with scripted(Reply(text_events("red"))) as script:
        framework(script).show(Image.new("RGB", (3, 2), "red"))
        picture, text = script.bodies[0]["messages"][0]["content"]
        assert picture["image_url"]["url"].startswith("data:image/png;base64,")
        assert text == {"type": "text", "text": "What?"}


@both
@pytest.mark.parametrize(
    "failure", [Reply(status=429), Reply(status=503), Reply(status=408), Reply(broken=True), Reply()]
)
async def test_what_failed_before_any_text_is_asked_again(framework: Any, failure: Reply) -> None:
    for way in ("ask", "aask"):
        with scripted(failure, failure, Reply(text_events("late"))) as script:
            chat = framework(script)
            answer = chat.ask() if way == "ask" else await chat.aask()
            assert (chat.read(answer)[0], len(script.bodies)) == ("late", 3)


@both
async def test_nothing_is_asked_twice_after_text_came(framework: Any) -> None:
    with scripted(Reply(text_events("half", "way")[:1], broken=True)) as script:
        chat, pieces = framework(script), []
        with pytest.raises(ConnectionError, match="not asked again, since a part of the answer was delivered"):
            pieces.extend(chat.stream())
        with pytest.raises(ConnectionError, match="not asked again"):
            [pieces.append(piece) async for piece in chat.astream()]  # type: ignore[func-returns-value]
        with pytest.raises(ConnectionError, match="not asked again"):
            chat.ask()
        assert (pieces, len(script.bodies)) == (["half", "half"], 3)


@both
async def test_time_limits_hold_while_nothing_comes(framework: Any) -> None:
    with scripted(Reply(text_events("x"), pause=0.5)) as script:
        chat = framework(script, timeout=0.1)
        with pytest.raises(TimeoutError, match=r"timeout=0\.1"):
            chat.ask()
        with pytest.raises(TimeoutError, match=r"timeout=0\.1"):
            await chat.aask()
        assert len(script.bodies) == 2
        assert await asyncio.to_thread(script.left.wait, 6)  # the requests were closed


@both
async def test_leaving_a_stream_closes_the_request(framework: Any) -> None:
    with scripted(Reply(text_events(*["x"] * 400), pause=0.01)) as script:
        chat = framework(script)
        with closing(chat.stream()) as pieces:
            next(pieces)
        assert await asyncio.to_thread(script.left.wait, 3)
        script.left.clear()
        async with aclosing(chat.astream()) as pieces:
            await anext(pieces)
        assert await asyncio.to_thread(script.left.wait, 3)
        script.left.clear()
        task = asyncio.create_task(chat.aask())
        while len(script.bodies) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(script.left.wait, 3)


def test_pauses_grow_and_follow_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(server_engine, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(server_engine.asyncio, "sleep", note)
    for headers, expected in (({}, [0.5, 1.0, 2.0]), ({"Retry-After": "7"}, [7.0, 7.0, 7.0])):
        with scripted(Reply(status=429, headers=headers)) as script, pytest.raises(ConnectionError, match="429"):
            LangChain(script).ask()
        assert len(script.bodies) == 4
        assert all(least <= seconds <= 1.25 * least for seconds, least in zip(waited, expected, strict=True))
        waited.clear()
    with scripted(Reply(status=429, headers={"Retry-After": "3600"})) as script, pytest.raises(ConnectionError):
        LangChain(script).ask()
    assert (len(script.bodies), waited) == (1, [])


def test_usage_that_no_server_told_is_none() -> None:
    with scripted(Reply(text_events("x")[:-1])) as script:
        assert LangChain(script).ask().usage_metadata is None
        assert "usage" not in (LlamaIndex(script).ask().raw or {})
