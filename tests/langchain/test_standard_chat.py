"""LangChain's own suites for chat models, on a random checkpoint; the gates of tools and images skip theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_minicpm import ChatMiniCPM


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


class TestChatMiniCPMIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _checkpoints(self, toy: Path, other_toy: Path) -> None:
        self.toy, self.other_toy = toy, other_toy

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatMiniCPM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": str(self.toy), "seed": 0, "max_tokens": 16}

    @property
    def model_override_value(self) -> str:
        return str(self.other_toy)

    @property
    def supported_usage_metadata_details(self) -> dict[str, Any]:
        return {way: ["reasoning_output", "cache_read_input"] for way in ("invoke", "stream")}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._ask(stream=stream, enable_thinking=True)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        return self._ask(stream=stream)

    def _ask(self, *, stream: bool, **options: Any) -> AIMessage:
        model = ChatMiniCPM(model=self.toy, max_tokens=8, **options)
        if not stream:
            return model.invoke("Hello")
        full = AIMessageChunk("")
        for chunk in model.stream("Hello"):
            full += chunk
        return full
