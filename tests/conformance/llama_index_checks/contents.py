"""Checks of what responses hold besides text: pictures in, thinking and probabilities out."""

from __future__ import annotations

import base64
import math
import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ThinkingBlock

from tests.conformance.llama_index_checks.base import Conformance, check_stream, text_of


def picture(red: int) -> bytes:
    """Return a PNG of 24 x 24 pixels of one colour."""
    rows = (b"\x00" + bytes((red, 80, 120)) * 24) * 24
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 24, 24, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _show(**block: object) -> list[ChatMessage]:
    return [ChatMessage(role="user", blocks=[TextBlock(text="What is this?"), ImageBlock(**block)])]


class ContentTests(Conformance):
    """Pictures, thinking and log probabilities."""

    def test_pictures(self) -> None:
        """A picture as bytes, as a file and as a data URL gives the same answer."""
        self.need("supports_images")
        llm, data = self.create(), picture(200)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            path.write_bytes(data)
            url = "data:image/png;base64," + base64.b64encode(data).decode()
            answers = [text_of(llm.chat(_show(**form))) for form in ({"image": data}, {"path": path}, {"url": url})]
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

    def test_thinking(self) -> None:
        """Thinking stands in a ThinkingBlock in front of the answer, and its deltas add up to it."""
        self.need("has_thinking")
        llm = self.create()
        block = llm.chat(self.ask(), **self.thinking_options).message.blocks[0]
        assert isinstance(block, ThinkingBlock)
        assert block.content
        responses = list(llm.stream_chat(self.ask(), **self.thinking_options))
        check_stream(responses)
        deltas = "".join(response.additional_kwargs.get("thinking_delta") or "" for response in responses)
        last = responses[-1].message.blocks[0]
        assert isinstance(last, ThinkingBlock)
        assert deltas == last.content

    def test_logprobs(self) -> None:
        """Each token of the answer has a log probability, and at least the asked number of likely tokens."""
        self.need("has_logprobs")
        response = self.create().chat(self.ask(), logprobs=True, top_logprobs=2)
        assert response.logprobs
        if self.has_token_usage:
            unseen = response.raw["usage"]["completion_tokens"] - len(response.logprobs)
            assert unseen in (0, 1)  # the token that ends the answer is no part of it
        for place in response.logprobs:
            assert len(place) >= 2
            assert all(-math.inf < token.logprob <= 1e-4 for token in place)
            assert sum(math.exp(token.logprob) for token in place) < 1.001

    def test_logprobs_of_completions_and_streams(self) -> None:
        """Completions and the last response of a stream have the same log probabilities as chat."""
        self.need("has_logprobs", "is_deterministic")
        llm = self.create()
        chat = llm.chat(self.ask(), logprobs=True, top_logprobs=1)
        assert list(llm.stream_chat(self.ask(), logprobs=True, top_logprobs=1))[-1].logprobs == chat.logprobs
        completion = llm.complete(self.question, logprobs=True, top_logprobs=1)
        assert completion.logprobs
        if completion.text == text_of(chat):
            assert completion.logprobs == chat.logprobs

    def test_logprobs_only_on_request(self) -> None:
        """Without the request a response has no log probabilities."""
        assert not self.create().chat(self.ask()).logprobs
