"""The conformance suite on MiniCPM: a random checkpoint of each dialect, and the demo checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llamaindex_minicpm import MiniCPM
from tests.conformance.llama_index import LLMTests
from tests.toy import write_llama
from tests.toy_families import write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

LONG = {"grammar": "start: /[a-z ]{1200}/", "max_tokens": 120}


@contextmanager
def count_steps(llm: Any) -> Iterator[list[int]]:
    """Note every forward pass of the model."""
    model, steps = llm.load_engine().model, []
    forward = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        time.sleep(0.003)  # a step of a toy ends before the event loop turns once
        return forward(*args, **kwargs)

    model.forward = counted
    try:
        yield steps
    finally:
        del model.forward


class MiniCPMTests(LLMTests):
    """What MiniCPM can do with any checkpoint."""

    llm_class = MiniCPM
    has_logprobs = True
    secret_params = {"api_key": "sk-very-secret"}  # noqa: RUF012
    long_options = LONG
    caller_params = {"max_tokens": 240}  # noqa: RUF012

    def count_work(self, llm: Any) -> Any:
        return count_steps(llm)

    def create_react_llm(self, tools: list[Any]) -> Any:
        from llamaindex_minicpm import react_grammar

        return self.create(grammar=react_grammar(tools, thought_tokens=20, room=40), max_tokens=160)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random checkpoint of each dialect."""
    folder, room = tmp_path_factory.mktemp("dialects"), {"max_position_embeddings": 4096}
    return {
        "minicpm5": write_llama(folder / "minicpm5", **room),
        "python": write_family(folder / "python", "minicpm4", **room),
        "json": write_family(folder / "json", "minicpm", **room),
        "qwen3_coder": write_native(folder / "qwen3_coder", "minicpmv4_6"),
        "hermes": write_minicpmv(folder / "hermes", "4.5", **room),
    }


class ToyTests(MiniCPMTests):
    """A random checkpoint: nothing is known, and everything is valid nevertheless."""

    dialect = ""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, folders: dict[str, Path]) -> None:
        self.llm_params = {"model": folders[self.dialect], "temperature": 0, "max_tokens": 32}


class TestMiniCPM5(ToyTests):
    dialect = "minicpm5"
    has_thinking = True
    thinking_options = {"enable_thinking": True}  # noqa: RUF012


class TestPython(ToyTests):
    dialect = "python"


class TestJson(ToyTests):
    dialect = "json"


class TestQwen3Coder(ToyTests):
    dialect = "qwen3_coder"
    supports_images = True


class TestHermes(ToyTests):
    dialect = "hermes"
    supports_images = True


class TestDemo(MiniCPMTests):
    """The demo checkpoint, which was trained to call tools."""

    is_trained = True
    llm_params = {"model": "demo", "temperature": 0, "max_tokens": 48}  # noqa: RUF012
