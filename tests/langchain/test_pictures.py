"""Pictures in LangChain: every form in every place, what they cost, and that answers are made as for text."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from PIL import Image
from pydantic import BaseModel

from langchain_minicpm import ChatMiniCPM, ChatMiniCPMV
from minicpm_core import PictureSettings, media
from tests.langchain.conftest import Recorder, add

PIXELS = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encode(kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, kind)
    return stream.getvalue()


PNG = encode()
TEXT = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{TEXT}"
BLOCK = {"type": "image", "base64": TEXT, "mime_type": "image/png"}


class Receipt(BaseModel):
    shop: str
    total: float
    paid: bool


def ask(*blocks: Any) -> list[HumanMessage]:
    return [HumanMessage([*blocks, {"type": "text", "text": "What is it?"}])]


@pytest.fixture(params=["qwen3_coder", "hermes"])
def chat(request: pytest.FixtureRequest, toys: dict[str, Path]) -> ChatMiniCPMV:
    return ChatMiniCPMV(model=toys[request.param], temperature=0, max_tokens=12)


def test_every_form_gives_the_same_answer(chat: ChatMiniCPMV, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(PNG)
    monkeypatch.setattr(media, "fetch", lambda url, **_: PNG)
    blocks: list[dict[str, Any]] = [
        BLOCK,
        {"type": "image", "base64": TEXT},
        {"type": "image", "url": URI},
        {"type": "image", "url": "https://example.com/picture.png"},
        {"type": "image", "path": str(file)},
        {"type": "image", "image": file},
        {"type": "image", "image": str(file)},
        {"type": "image", "image": PICTURE},
        {"type": "image", "image": PIXELS},
        {"type": "image", "image": PNG},
        {"type": "image", "source_type": "base64", "data": TEXT, "mime_type": "image/png"},
        {"type": "image", "source_type": "url", "url": URI},
        {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
        {"type": "image_url", "image_url": URI},
        {"type": "image_url", "image_url": {"url": "https://example.com/picture.png"}},
        {"type": "input_image", "image_url": URI},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/picture.png"}},
        {"type": "media", "mime_type": "image/png", "data": TEXT},
        {"type": "file", "mime_type": "image/png", "base64": TEXT},
    ]
    engine = chat.load_engine()
    from langchain_minicpm.convert import to_template

    first = engine.prepare(to_template(ask(BLOCK)))
    assert first.pictures is not None
    for block in blocks:
        request = engine.prepare(to_template(ask(block)))
        assert request.prompt_ids == first.prompt_ids, block
        assert request.pictures is not None
        assert [p.digest for p in request.pictures.pictures] == [p.digest for p in first.pictures.pictures], block
    answers = {chat.invoke(ask(block)).text for block in blocks[:1] + blocks[7:9]}
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("kind", "mime_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("TIFF", "image/tiff")],
)
def test_base64_needs_no_type(kind: str, mime_type: str, chat: ChatMiniCPMV, recorder: Recorder) -> None:
    text = base64.b64encode(encode(kind)).decode()
    question = ask({"type": "image", "base64": text})
    assert chat.invoke(question, {"callbacks": [recorder]}).text == add(list(chat.stream(question))).text
    assert question[0].content[0] == {"type": "image", "base64": text}, "the caller's message stays as it was"
    assert mime_type in str(recorder.prompts)
    assert chat.generate([question, question]).generations[0][0].text == chat.invoke(question).text


def test_pictures_in_any_message_and_number(chat: ChatMiniCPMV) -> None:
    call = {"name": "look", "args": {}, "id": "c1"}
    messages = [
        SystemMessage("Look well."),
        HumanMessage(["a", BLOCK, "b", BLOCK]),
        AIMessage("", tool_calls=[call]),
        ToolMessage([{"type": "text", "text": "seen"}, BLOCK], tool_call_id="c1"),
        AIMessage("c"),
        HumanMessage([BLOCK]),
    ]
    from langchain_minicpm.convert import to_template

    request = chat.load_engine().prepare(to_template(messages))
    assert request.pictures is not None
    assert len(request.pictures.pictures) == 4
    assert chat.invoke(messages).usage_metadata["input_tokens"] == len(request.prompt_ids)


def test_streams_stops_and_async_are_those_of_text(chat: ChatMiniCPMV) -> None:
    whole = chat.invoke(ask(BLOCK))
    assert add(list(chat.stream(ask(BLOCK)))).text == whole.text
    stop = whole.text[2:4]
    assert chat.invoke(ask(BLOCK), stop=[stop]).text == whole.text[: whole.text.find(stop)]


async def test_asynchronous_answers(chat: ChatMiniCPMV) -> None:
    whole = chat.invoke(ask(BLOCK)).text
    assert (await chat.ainvoke(ask(BLOCK))).text == whole
    assert add([chunk async for chunk in chat.astream(ask(BLOCK))]).text == whole
    assert [answer.text for answer in await chat.abatch([ask(BLOCK), ask(BLOCK)])] == [whole] * 2


def test_a_receipt_is_read_into_a_class(chat: ChatMiniCPMV) -> None:
    reader = chat.with_structured_output(Receipt)
    question = [{"role": "user", "content": [BLOCK, {"type": "text", "text": "Read this receipt."}]}]
    for seed in range(3):
        found = reader.bind(temperature=1.0, seed=seed, max_tokens=300).invoke(question)
        assert isinstance(found, Receipt)
    *_, last = reader.bind(max_tokens=300).stream(question)
    assert isinstance(last, Receipt)
    prompt = ChatPromptTemplate([("human", [{"type": "image_url", "image_url": {"url": "{picture}"}}, "Read it."])])
    chain = prompt | chat.with_structured_output(Receipt, method="function_calling").bind(max_tokens=300)
    assert isinstance(chain.invoke({"picture": URI}), Receipt)


def test_tools_are_called_about_a_picture(chat: ChatMiniCPMV) -> None:
    @tool
    def keep(total: int) -> str:
        """Keep a total."""
        return str(total)

    answer = chat.bind_tools([keep], tool_choice="any", parallel_tool_calls=False).invoke(ask(BLOCK), max_tokens=300)
    (call,) = answer.tool_calls
    assert call["name"] == "keep"
    assert isinstance(call["args"]["total"], int)


def test_reasoning_comes_apart(toys: dict[str, Path]) -> None:
    chat = ChatMiniCPMV(model=toys["qwen3_coder"], temperature=0, max_tokens=8, enable_thinking=True)
    assert chat.invoke(ask(BLOCK)).additional_kwargs["reasoning_content"]


def test_what_a_picture_costs_is_known_before(chat: ChatMiniCPMV, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [
        ChatMiniCPMV(model=chat.model, max_slice_nums=n).get_num_tokens_from_messages(ask(BLOCK)) for n in (None, 1, 2)
    ]
    assert costs[1] < costs[2] < costs[0]
    used = [chat.invoke(ask(BLOCK), max_slice_nums=n).usage_metadata["input_tokens"] for n in (None, 1, 2)]
    assert used == costs
    kept = trim_messages(
        [*ask(BLOCK), AIMessage("a"), *ask(BLOCK)], max_tokens=costs[0] + 5, token_counter=chat, start_on="human"
    )
    assert len(kept) == 1


def test_settings_of_a_call_win(chat: ChatMiniCPMV) -> None:
    one = ChatMiniCPMV(model=chat.model, max_slice_nums=1, temperature=0, max_tokens=4)
    assert one._pictures({}) == PictureSettings(max_slice_nums=1)
    assert one._pictures({"max_slice_nums": 3, "use_image_id": False}) == PictureSettings(3, use_image_id=False)
    with pytest.raises(TypeError, match="unknown arguments max_slices"):
        one.invoke(ask(BLOCK), max_slices=3)
    with pytest.raises(ValueError, match="max_slice_nums is 0"):
        ChatMiniCPMV(model=chat.model, max_slice_nums=0)
    assert "max_slice_nums" in str(one._identifying_params)


def test_downsample_mode(toys: dict[str, Path]) -> None:
    chat = ChatMiniCPMV(model=toys["qwen3_coder"], temperature=0, max_tokens=4)
    tokens = [chat.invoke(ask(BLOCK), downsample_mode=m).usage_metadata["input_tokens"] for m in ("16x", "4x")]
    assert tokens[1] > 2 * tokens[0]
    with pytest.raises(ValueError, match="no downsample_mode"):
        ChatMiniCPMV(model=toys["hermes"], downsample_mode="4x").invoke(ask(BLOCK))


def test_a_text_model_refuses_pictures_and_their_settings(toy: Path) -> None:
    with pytest.raises(ValueError, match="reads text only"):
        ChatMiniCPM(model=toy).invoke(ask(BLOCK))
    with pytest.raises(ValueError, match="max_slice_nums: this model reads text only"):
        ChatMiniCPM(model=toy, max_slice_nums=2).invoke("Hello")


def test_private_urls_are_refused_unless_allowed(chat: ChatMiniCPMV, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(media, "fetch", lambda url, allow_private, **_: asked.append(allow_private) or PNG)
    block = {"type": "image", "url": "http://192.168.0.7/picture.png"}
    chat.invoke(ask(block))
    chat.invoke(ask(block), allow_private_urls=True)
    assert asked == [False, True]


@pytest.mark.parametrize("form", [PICTURE, PIXELS, PNG])
def test_a_cache_tells_pictures_apart(form: Any, toys: dict[str, Path]) -> None:
    cache = InMemoryCache()
    chat = ChatMiniCPMV(model=toys["hermes"], temperature=0, max_tokens=4, cache=cache)
    other = {"type": "image", "image": np.ascontiguousarray(PIXELS[::-1])}
    for blocks in ([{"type": "image", "image": form}], [other], [{"type": "image", "image": form}]):
        chat.invoke(ask(*blocks))
    assert len(cache._cache) == 2


def test_the_default_model_sees(monkeypatch: pytest.MonkeyPatch, toys: dict[str, Path]) -> None:
    monkeypatch.delenv("MINICPM_VISION_MODEL", raising=False)
    assert ChatMiniCPMV().model == "openbmb/MiniCPM-V-4.6"
    monkeypatch.setenv("MINICPM_VISION_MODEL", str(toys["hermes"]))
    chat: BaseChatModel = ChatMiniCPMV()
    assert isinstance(chat, ChatMiniCPM)
    assert chat.profile is not None
    gates = ("image_inputs", "image_url_inputs", "pdf_inputs", "video_inputs", "image_tool_message")
    assert [chat.profile[gate] for gate in gates] == [True] * 5
    assert ChatMiniCPMV(engine=chat.load_engine(), temperature=0).model == chat.load_engine().checkpoint.name


def test_videos_of_frames(chat: ChatMiniCPMV) -> None:
    video = {"type": "video", "video": [PICTURE, PICTURE], "fps": 2}
    assert chat.get_num_tokens_from_messages(ask(video)) > chat.get_num_tokens_from_messages(ask())
    assert chat.invoke(ask(video)).usage_metadata["input_tokens"] == chat.get_num_tokens_from_messages(ask(video))
