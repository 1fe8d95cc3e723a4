"""LangChain's own suites for chat models, on a random checkpoint of each syntax of tool calls; two of them see.

Random weights know no values: the four tests that ask for one (the number 3, a customer's name) are expected to fail;
all others hold by construction.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from PIL import Image

from langchain_minicpm import ChatMiniCPM, ChatMiniCPMV
from minicpm_core import media
from tests.langchain.conftest import TOYS, add

knows_no_values = pytest.mark.xfail(
    raises=AssertionError, strict=True, reason="random weights cannot copy a value from the question"
)
both_versions = pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)


class TestChatMiniCPMUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatMiniCPM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "no-such-folder-is-needed"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return (
            {"MINICPM_MODEL": "somewhere/else", "MINICPM_MEMORY_LIMIT": "3GiB"},
            {},
            {"model": "somewhere/else", "memory_limit": "3GiB"},
        )


class TestChatMiniCPMVUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatMiniCPMV

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "no-such-folder-is-needed", "max_slice_nums": 4}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return ({"MINICPM_VISION_MODEL": "somewhere/else"}, {}, {"model": "somewhere/else"})


class StandardChat(ChatModelIntegrationTests):
    """The gates that are on for every checkpoint."""

    checkpoint: str
    other_checkpoint: str
    thinks = True

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatMiniCPM

    @property
    def model_override_value(self) -> str:
        return self.other_checkpoint

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[str, Any]:
        details = ["reasoning_output", "cache_read_input"] if self.thinks else ["cache_read_input"]
        return {way: details for way in ("invoke", "stream")}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._ask(stream=stream, enable_thinking=True)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        return self._ask(stream=stream)

    def _ask(self, *, stream: bool, **options: Any) -> AIMessage:
        model = ChatMiniCPM(model=self.checkpoint, max_tokens=8, **options)
        return add(list(model.stream("Hello"))) if stream else model.invoke("Hello")


class ToyChat(StandardChat):
    @pytest.fixture(autouse=True)
    def _checkpoints(self, toys: dict[str, Path], other_toy: Path) -> None:
        self.checkpoint, self.other_checkpoint = str(toys[self.dialect]), str(other_toy)

    dialect: str
    max_tokens = 96

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self.checkpoint,
            "seed": 0,
            "max_tokens": self.max_tokens,
            "tool_choice": "any",
            "parallel_tool_calls": False,
        }

    @knows_no_values
    @both_versions
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @knows_no_values
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @knows_no_values
    def test_unicode_tool_call_integration(
        self, model: BaseChatModel, *, tool_choice: str | None = None, force_tool_call: bool = True
    ) -> None:
        super().test_unicode_tool_call_integration(model, tool_choice=tool_choice, force_tool_call=force_tool_call)


class TestMiniCPM5(ToyChat):
    dialect = "minicpm5"


class TestPython(ToyChat):
    dialect = "python"
    thinks = False


class SeeingChat(ToyChat):
    """The gates of pictures; what the suite would download is made here."""

    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_pdf_inputs = True
    supports_pdf_tool_message = True

    @pytest.fixture(autouse=True)
    def _downloads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8))
        contents = {}
        for kind in ("PNG", "JPEG", "PDF"):
            stream = io.BytesIO()
            pixels.save(stream, kind)
            contents[kind] = stream.getvalue()

        def find(url: str) -> bytes:
            return contents["PDF" if url.endswith(".pdf") else "PNG" if url.endswith(".png") else "JPEG"]

        monkeypatch.setattr(httpx, "get", lambda url, **_: SimpleNamespace(content=find(url)))
        monkeypatch.setattr(media, "fetch", lambda url, **_: find(url))


class TestQwen3Coder(SeeingChat):
    dialect = "qwen3_coder"
    max_tokens = 320  # the toy's tokens are short, and so many are the tags of this syntax


class TestHermes(SeeingChat):
    dialect = "hermes"
    max_tokens = 256

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatMiniCPMV


class TestJson(ToyChat):
    dialect = "json"
    thinks = False


def test_every_dialect_is_here(toys: dict[str, Path]) -> None:
    from minicpm_core.families import FAMILIES

    dialects = {family.dialect.name for family in FAMILIES}
    cases = {*ToyChat.__subclasses__(), *SeeingChat.__subclasses__()} - {SeeingChat}
    assert set(TOYS) == dialects == {case.dialect for case in cases}
    for name, folder in toys.items():
        engine = ChatMiniCPM(model=folder).load_engine()
        assert engine.family.dialect.name == name
        assert (engine.family.vision is not None) == (name in {case.dialect for case in SeeingChat.__subclasses__()})


def test_every_gate_of_pictures_is_open() -> None:
    gates = [name for name in dir(ChatModelIntegrationTests) if re.match("supports_.*(image|pdf)", name)]
    assert len(gates) == 5
    assert all(getattr(SeeingChat, gate) is True for gate in gates)
