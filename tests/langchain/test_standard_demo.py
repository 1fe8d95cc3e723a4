"""LangChain's suites for chat models on the demo checkpoint.

It was not trained to call tools yet: tests that need a value of the request, or a call that is not forced, are
expected to fail, strictly, until it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_minicpm import ChatMiniCPM
from tests.langchain.test_standard_chat import StandardChat, both_versions

knows_no_tools = pytest.mark.xfail(
    raises=AssertionError, strict=True, reason="the demo checkpoint was not trained to call tools yet"
)


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

    @knows_no_tools
    @both_versions
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @knows_no_tools
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @knows_no_tools
    @both_versions
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)

    @knows_no_tools
    def test_unicode_tool_call_integration(
        self,
        model: BaseChatModel,
        *,
        tool_choice: str | None = None,  # noqa: PT028
        force_tool_call: bool = True,  # noqa: PT028
    ) -> None:
        super().test_unicode_tool_call_integration(model, tool_choice=tool_choice, force_tool_call=force_tool_call)
