"""Pictures in LlamaIndex: blocks, documents and nodes, the multimodal class, and answers as for text."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage, DocumentBlock, ImageBlock, TextBlock, VideoBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.program import MultiModalLLMCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.schema import ImageDocument, ImageNode, NodeWithScore
from llama_index.core.tools import FunctionTool
from PIL import Image
from pydantic import BaseModel

from llamaindex_minicpm import MiniCPM, MiniCPMLLM, MiniCPMMultiModal
from llamaindex_minicpm.convert import show_pictures, to_messages
from minicpm_core import media
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

PIXELS = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encode(kind: str) -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, kind)
    return stream.getvalue()


PNG = encode("PNG")
TEXT = base64.b64encode(PNG).decode()
URL = "https://example.com/picture.png"


class Receipt(BaseModel):
    shop: str
    total: float
    paid: bool


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("seeing")
    return {
        "newer": write_native(folder / "newer", "minicpmv4_6"),
        "older": write_minicpmv(folder / "older", "4.5", max_position_embeddings=4096),
    }


@pytest.fixture(params=["newer", "older"])
def llm(request: pytest.FixtureRequest, folders: dict[str, Path]) -> MiniCPMMultiModal:
    return MiniCPMMultiModal(model=folders[request.param], temperature=0, max_tokens=12)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    return path


def ask(*blocks: Any) -> list[ChatMessage]:
    return [ChatMessage(role="user", blocks=[*blocks, TextBlock(text="What is it?")])]


def same_pictures(llm: Any, turns: list[Any]) -> None:
    engine = llm.load_engine()
    first = engine.prepare(to_messages(ask(ImageBlock(image=PNG))))
    for turn in turns:
        request = engine.prepare(turn)
        assert request.prompt_ids == first.prompt_ids
        assert request.pictures is not None
        assert first.pictures is not None
        assert [p.digest for p in request.pictures.pictures] == [p.digest for p in first.pictures.pictures]


def test_blocks_in_every_form(llm: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "fetch", lambda url, **_: PNG)
    blocks = [
        ImageBlock(image=PNG),
        ImageBlock(image=TEXT.encode()),
        ImageBlock(image=io.BytesIO(PNG)),
        ImageBlock(path=file),
        ImageBlock(url=URL),
        ImageBlock(url=f"data:image/png;base64,{TEXT}"),
        DocumentBlock(data=PNG, document_mimetype="image/png"),
    ]
    same_pictures(llm, [to_messages(ask(block)) for block in blocks])


def test_documents_and_nodes_in_every_form(llm: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "fetch", lambda url, **_: PNG)
    pictures: list[Any] = [
        ImageDocument(image=TEXT),
        ImageDocument(image_path=str(file)),
        ImageDocument(text="scan", metadata={"file_path": str(file)}),
        ImageNode(image=TEXT),
        ImageNode(image_path=str(file)),
        ImageNode(image_url=URL),
        NodeWithScore(node=ImageNode(image=TEXT), score=1.0),
        ImageBlock(image=PNG),
        file,
        str(file),
        PICTURE,
        PIXELS,
        PNG,
        URL,
    ]
    question = [{"role": "user", "content": "What is it?"}]
    same_pictures(llm, [show_pictures(question, [picture]) for picture in pictures])
    with pytest.raises(ValueError, match="a picture part needs exactly one of"):
        llm.complete("What is it?", [ImageDocument(text="no picture")])


def test_pictures_in_tool_messages_and_over_turns(llm: Any) -> None:
    messages = [
        ChatMessage(role="system", content="Look well."),
        *ask(ImageBlock(image=PNG), ImageBlock(image=PNG)),
        ChatMessage(role="assistant", content="a"),
        ChatMessage(role="tool", blocks=[ImageBlock(image=PNG)], additional_kwargs={"tool_call_id": "1", "name": "f"}),
        *ask(ImageBlock(image=PNG)),
    ]
    request = llm.load_engine().prepare(to_messages(messages))
    assert len(request.pictures.pictures) == 4
    assert llm.chat(messages).raw["usage"]["prompt_tokens"] == len(request.prompt_ids) == llm.count_tokens(messages)


async def test_the_four_ways_to_complete_are_those_of_chat(llm: Any) -> None:
    expected = llm.chat(ask(ImageBlock(image=PNG))).message.content
    document = [ImageDocument(image=TEXT)]
    assert llm.complete("What is it?", document).text == expected
    assert llm.complete("What is it?", image_documents=document).text == expected
    assert [*llm.stream_complete("What is it?", document)][-1].text == expected
    assert (await llm.acomplete("What is it?", document)).text == expected
    assert [one async for one in await llm.astream_complete("What is it?", document)][-1].text == expected
    assert llm.complete("What is it?").text == llm.complete("What is it?", []).text
    other = MiniCPM(model=llm.model, temperature=0, max_tokens=12)
    assert other.complete("What is it?", image_documents=document).text == expected
    assert MiniCPMLLM(model=llm.model, temperature=0, max_tokens=12).chat(ask(ImageBlock(image=PNG))).message.content
    with pytest.raises(ValueError, match="not with one that is formatted"):
        llm.complete("What is it?", document, formatted=True)


def test_the_callbacks_hear_of_it_once(llm: Any) -> None:
    counter = TokenCountingHandler(tokenizer=llm.tokenize)
    seeing = MiniCPMMultiModal(model=llm.model, max_tokens=4, callback_manager=CallbackManager([counter]))
    response = seeing.complete("What is it?", [PICTURE])
    assert counter.total_llm_token_count == response.raw["usage"]["total_tokens"]
    assert len(counter.llm_token_counts) == 1


@pytest.mark.filterwarnings("ignore:The `json` method:DeprecationWarning")
def test_a_receipt_is_read_into_a_class(llm: Any, file: Path) -> None:
    llm = MiniCPMMultiModal(model=llm.model, max_tokens=300, temperature=1.0, seed=1)
    turns = [ChatMessage(role="user", blocks=[ImageBlock(path=file), TextBlock(text="Read this {what}.")])]
    template = ChatPromptTemplate(message_templates=turns)
    assert isinstance(llm.structured_predict(Receipt, template, what="receipt"), Receipt)
    *_, last = llm.stream_structured_predict(Receipt, template, what="receipt")
    assert isinstance(last, Receipt)
    structured: Any = llm.as_structured_llm(Receipt)
    assert isinstance(structured.chat(ask(ImageBlock(path=file))).raw, Receipt)
    *_, last = structured.stream_chat(ask(ImageBlock(path=file)))
    assert isinstance(last.raw, Receipt)
    asked = llm.load_engine().prepare(to_messages(template.format_messages(what="receipt")), response_schema=Receipt)
    assert asked.pictures is not None, "the picture is part of the prompt"


async def test_a_receipt_is_read_without_blocking(llm: Any, file: Path) -> None:
    turns = [ChatMessage(role="user", blocks=[ImageBlock(path=file), TextBlock(text="Read this.")])]
    llm = MiniCPMMultiModal(model=llm.model, max_tokens=300, temperature=0)
    assert isinstance(await llm.astructured_predict(Receipt, ChatPromptTemplate(message_templates=turns)), Receipt)


def test_the_older_program_of_multimodal_models(llm: Any) -> None:
    program = MultiModalLLMCompletionProgram.from_defaults(
        output_cls=Receipt,
        prompt_template_str="Read this.",
        multi_modal_llm=MiniCPMMultiModal(model=llm.model, max_tokens=300, temperature=0),
        image_documents=[ImageNode(image=TEXT)],
    )
    assert isinstance(program(llm_kwargs={"response_schema": Receipt}), Receipt)


def test_tools_are_called_about_a_picture(llm: Any) -> None:
    def keep(total: int) -> str:
        """Keep a total."""
        return str(total)

    response = llm.chat_with_tools(
        [FunctionTool.from_defaults(keep)], user_msg=ask(ImageBlock(image=PNG))[0], tool_required=True, max_tokens=300
    )
    (call,) = llm.get_tool_calls_from_response(response)
    assert call.tool_name == "keep"
    assert isinstance(call.tool_kwargs["total"], int)


def test_settings_of_the_constructor_and_of_a_call(llm: Any) -> None:
    question = ask(ImageBlock(image=PNG))
    costs = [MiniCPMMultiModal(model=llm.model, max_slice_nums=n).count_tokens(question) for n in (None, 1, 2)]
    assert costs[1] < costs[2] < costs[0]
    used = [llm.chat(question, max_slice_nums=n).raw["usage"]["prompt_tokens"] for n in (None, 1, 2)]
    assert used == costs
    with pytest.raises(ValueError, match="unknown arguments: max_slices"):
        llm.chat(question, max_slices=1)
    with pytest.raises(ValueError, match="max_slice_nums is 0"):
        MiniCPMMultiModal(model=llm.model, max_slice_nums=0)


def test_downsample_mode_is_the_newer_families(folders: dict[str, Path]) -> None:
    question = ask(ImageBlock(image=PNG))
    newer = MiniCPMMultiModal(model=folders["newer"])
    assert MiniCPMMultiModal(model=newer.model, downsample_mode="4x").count_tokens(question) > newer.count_tokens(
        question
    )
    with pytest.raises(ValueError, match="no downsample_mode"):
        MiniCPMMultiModal(model=folders["older"], downsample_mode="4x").count_tokens(question)


def test_private_urls_are_refused_unless_allowed(llm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(media, "fetch", lambda url, allow_private, **_: asked.append(allow_private) or PNG)
    question = ask(ImageBlock(url="http://10.0.0.9/picture.png"))
    llm.count_tokens(question)
    MiniCPMMultiModal(model=llm.model, allow_private_urls=True).count_tokens(question)
    llm.chat(question, allow_private_urls=True, max_tokens=1)
    assert asked == [False, True, True]


def test_pages_and_films(llm: Any, tmp_path: Path) -> None:
    page = DocumentBlock(data=encode("PDF"), document_mimetype="application/pdf")
    assert llm.count_tokens(ask(page)) > llm.count_tokens(ask())
    (part, _) = to_messages(ask(VideoBlock(video=b"a film", fps=2)))[0]["content"]
    assert part == {"type": "video", "mime_type": None, "data": b"a film", "fps": 2}


def test_the_default_model_sees(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    monkeypatch.delenv("MINICPM_VISION_MODEL", raising=False)
    assert MiniCPMMultiModal().model == "openbmb/MiniCPM-V-4.6"
    monkeypatch.setenv("MINICPM_VISION_MODEL", str(folders["older"]))
    llm = MiniCPMMultiModal()
    assert (llm.model, llm.class_name()) == (str(folders["older"]), "MiniCPMMultiModal")
    assert isinstance(llm, MiniCPM)
    assert llm.metadata.is_function_calling_model
    copy = MiniCPMMultiModal.from_dict(MiniCPMMultiModal(max_slice_nums=2).to_dict())
    assert copy.max_slice_nums == 2


def test_nothing_shown_is_lost(llm: Any, toy: Path) -> None:
    with pytest.raises(ValueError, match="this model reads text only"):
        MiniCPM(model=toy).complete("What is it?", image_documents=[PICTURE])
    with pytest.raises(ValueError, match="messages_to_prompt makes text of messages, and so loses image"):
        MiniCPM(model=llm.model, messages_to_prompt=str).chat(ask(ImageBlock(image=PNG)))
