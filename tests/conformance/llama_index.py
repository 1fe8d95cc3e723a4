"""A suite for LlamaIndex language models, in the manner of langchain-tests: subclass `LLMTests`.

Example (pytest with `asyncio_mode = "auto"`)::

    from tests.conformance.llama_index import LLMTests

    class TestMyLLM(LLMTests):
        llm_class = MyLLM
        llm_params = {"model": "small", "temperature": 0, "max_tokens": 48}
        has_logprobs = True

Gates (see `Conformance`) say what the class can do; a check behind a closed gate is skipped. A check may be overridden
only to mark it `xfail` with a reason.
"""

from __future__ import annotations

from typing import Any

from tests.conformance.llama_index_checks.agents import AgentTests
from tests.conformance.llama_index_checks.asking import AskingTests
from tests.conformance.llama_index_checks.base import Conformance
from tests.conformance.llama_index_checks.contents import ContentTests
from tests.conformance.llama_index_checks.history import HistoryTests
from tests.conformance.llama_index_checks.observing import ObservingTests
from tests.conformance.llama_index_checks.pictures import PictureTests
from tests.conformance.llama_index_checks.running import RunningTests
from tests.conformance.llama_index_checks.structured import StructuredTests
from tests.conformance.llama_index_checks.tools import ToolTests

__all__ = ["LLMTests", "describe_gates", "list_checks"]


class LLMTests(
    AskingTests,
    ContentTests,
    PictureTests,
    ObservingTests,
    RunningTests,
    ToolTests,
    HistoryTests,
    StructuredTests,
    AgentTests,
):
    """All checks; a subclass sets `llm_class`, `llm_params` and the gates."""

    def test_no_check_is_overridden(self) -> None:
        """No check of the suite is replaced or removed, except to mark it xfail with a reason."""
        for name in list_checks():
            mine, standard = getattr(type(self), name, None), getattr(LLMTests, name)
            if mine is standard:
                continue
            marks = [mark for mark in getattr(mine, "pytestmark", ()) if mark.name == "xfail"]
            assert marks, f"{name} is overridden and not marked xfail"
            assert marks[0].kwargs.get("reason"), f"{name} is marked xfail without a reason"


def list_checks() -> list[str]:
    """Return the names of all checks."""
    return sorted(name for name in dir(LLMTests) if name.startswith("test_"))


def describe_gates(suite: Any) -> dict[str, bool]:
    """Return the gates of a suite and whether they are open."""
    names = [name for name in vars(Conformance) if name.startswith(("has_", "is_", "supports_", "refuses_"))]
    return {name: bool(getattr(suite, name)) for name in names}
