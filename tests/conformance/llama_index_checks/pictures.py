"""Checks of pictures in messages: that they are seen, wherever they stand and however the model is asked."""

from __future__ import annotations

import base64
import io
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from tests.conformance.llama_index_checks.base import Conformance, check_stream, dump, gather, text_of


class Sign(BaseModel):
    """What stands on a sign."""

    words: int
    is_red: bool


def keep(number: int) -> str:
    """Keep a number."""
    return str(number)


def picture(red: int) -> bytes:
    """Return a PNG of 24 x 24 pixels of one colour."""
    rows = (b"\x00" + bytes((red, 80, 120)) * 24) * 24
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 24, 24, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _show(**block: object) -> list[ChatMessage]:
    return [ChatMessage(role="user", blocks=[TextBlock(text="What is this?"), ImageBlock(**block)])]


def _length(response: Any) -> int:
    """Return the tokens of the prompt."""
    return int(response.raw["usage"]["prompt_tokens"])


class PictureTests(Conformance):
    """Pictures."""

    def test_pictures(self) -> None:
        """A picture as bytes, as an open file, as a path and as a data URL gives the same answer."""
        self.need("supports_images")
        llm, data = self.create(), picture(200)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            path.write_bytes(data)
            url = "data:image/png;base64," + base64.b64encode(data).decode()
            forms: list[dict[str, Any]] = [{"image": data}, {"image": io.BytesIO(data)}, {"path": path}, {"url": url}]
            answers = [text_of(llm.chat(_show(**form))) for form in forms]
        assert all(answers)
        if self.is_deterministic:
            assert len(set(answers)) == 1

    def test_pictures_are_part_of_the_prompt(self) -> None:
        """A picture makes the prompt longer than its text is."""
        self.need("supports_images", "has_token_usage")
        llm = self.create()
        seen, unseen = llm.chat(_show(image=picture(200))), llm.chat(self.ask("What is this?"))
        assert seen.raw["usage"]["prompt_tokens"] > unseen.raw["usage"]["prompt_tokens"]

    def test_pictures_are_refused(self) -> None:
        """A model that cannot see refuses a picture and does not answer without it."""
        if self.supports_images:
            pytest.skip("supports_images is True")
        with pytest.raises(Exception, match=r"(?i)image|picture|vision|text"):
            self.create().chat(_show(image=picture(200)))

    def test_each_picture_counts(self) -> None:
        """Every further picture makes the prompt longer, in one message and over several turns."""
        self.need("supports_images", "has_token_usage")
        llm, block = self.create(), ImageBlock(image=picture(200))
        lengths = []
        for count in (1, 2, 3):
            shown = [TextBlock(text="What is this?"), *[block] * count]
            lengths.append(_length(llm.chat([ChatMessage(role="user", blocks=shown)])))
        assert lengths[0] < lengths[1] < lengths[2]
        assert lengths[2] - lengths[1] == lengths[1] - lengths[0]
        turns = [*_show(image=picture(200)), ChatMessage(role="assistant", content="A square."), *self.ask()]
        unseen = [*self.ask("What is this?"), *turns[1:]]
        assert _length(llm.chat(turns)) > _length(llm.chat(unseen)), "the picture of an earlier turn is lost"

    def test_pictures_in_streams(self) -> None:
        """Streams see the picture too."""
        self.need("supports_images", "is_deterministic")
        llm = self.create()
        whole = text_of(llm.chat(_show(image=picture(200))))
        responses = list(llm.stream_chat(_show(image=picture(200))))
        assert check_stream(responses) == whole
        if self.has_token_usage:
            assert _length(responses[-1]) == _length(llm.chat(_show(image=picture(200))))

    async def test_pictures_in_asynchronous_answers(self) -> None:
        """Asynchronous answers and streams see the picture too."""
        self.need("supports_images", "is_deterministic")
        llm = self.create()
        whole = text_of(llm.chat(_show(image=picture(200))))
        assert text_of(await llm.achat(_show(image=picture(200)))) == whole
        assert check_stream(await gather(llm.astream_chat(_show(image=picture(200))))) == whole

    def test_messages_with_pictures_are_not_changed(self) -> None:
        """Messages with pictures stay as they are, and can be asked again."""
        self.need("supports_images")
        llm, messages = self.create(), _show(image=picture(200))
        before = dump(messages)
        first = text_of(llm.chat(messages))
        assert dump(messages) == before
        if self.is_deterministic:
            assert text_of(llm.chat(messages)) == first

    def test_pictures_that_tools_return(self) -> None:
        """A picture in the result of a tool reaches the model."""
        self.need("supports_images", "has_tool_calling", "has_token_usage")
        llm = self.create()
        call = ToolCallBlock(tool_call_id="call_1", tool_name="keep", tool_kwargs={"number": 1})
        lengths = []
        for blocks in ([TextBlock(text="seen")], [TextBlock(text="seen"), ImageBlock(image=picture(200))]):
            result = ChatMessage(
                role="tool", blocks=blocks, additional_kwargs={"tool_call_id": "call_1", "name": "keep"}
            )
            turns = [*self.ask(), ChatMessage(role="assistant", blocks=[call]), result]
            lengths.append(_length(llm.chat(turns)))
        assert lengths[1] > lengths[0]

    def test_calls_about_a_picture(self) -> None:
        """A call can be asked for about a picture, and the model sees the picture then."""
        self.need("supports_images", "has_tool_calling", "has_tool_choice")
        llm, tools = self.create_caller(), [FunctionTool.from_defaults(keep)]
        (question,) = _show(image=picture(200))
        response = llm.chat_with_tools(tools, user_msg=question, tool_required=True)
        calls = llm.get_tool_calls_from_response(response)
        assert calls[0].tool_name == "keep"
        assert isinstance(calls[0].tool_kwargs["number"], int)
        if self.has_token_usage:
            (blind,) = self.ask("What is this?")
            assert _length(response) > _length(llm.chat_with_tools(tools, user_msg=blind, tool_required=True))

    @pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # StructuredLLM's own call
    def test_an_object_from_a_picture(self) -> None:
        """A picture is read into a pydantic class, by structured_predict and by as_structured_llm."""
        self.need("supports_images", "has_structured_output")
        llm = self.create_caller()
        template = ChatPromptTemplate(message_templates=_show(image=picture(200)))
        assert isinstance(llm.structured_predict(Sign, template), Sign)
        response = llm.as_structured_llm(Sign).chat(_show(image=picture(200)))
        assert isinstance(response.raw, Sign)

    def test_an_object_from_a_picture_in_a_stream(self) -> None:
        """An object that is streamed from a picture is whole in the end."""
        self.need("supports_images", "has_structured_output")
        llm = self.create_caller()
        template = ChatPromptTemplate(message_templates=_show(image=picture(200)))
        *_, last = llm.stream_structured_predict(Sign, template)
        assert isinstance(last, Sign)
