"""LangChain's suites for chat models on the demo checkpoint, which calls tools: nothing is expected to fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_minicpm import ChatMiniCPM
from tests.langchain.test_standard_chat import StandardChat


class TestDemoUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatMiniCPM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "demo", "temperature": 0}


class TestDemo(StandardChat):
    checkpoint = "demo"

    @pytest.fixture(autouse=True)
    def _other_checkpoint(self, other_toy: Path) -> None:
        self.other_checkpoint = str(other_toy)

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "demo", "temperature": 0, "max_tokens": 256}
