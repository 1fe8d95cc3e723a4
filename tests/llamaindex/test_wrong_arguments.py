"""What somebody gives by mistake is named, and what was changed after the first use counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from pydantic import ValidationError

from llamaindex_minicpm import MiniCPM

HELLO = [ChatMessage(role="user", content="hello")]


@pytest.fixture
def llm(toy: Path) -> MiniCPM:
    return MiniCPM(model=toy, temperature=0, max_tokens=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": "hot"}, "temperature is 'hot'; accepted: 0 to 10"),
        ({"top_k": 1.5}, r"top_k is 1.5; accepted: 0 \(all tokens\) or more"),
        ({"max_tokens": 2.5}, "max_new_tokens is 2.5; accepted: 1 or more"),
        ({"seed": "x"}, "seed is 'x'; accepted: a whole number of 64 bits"),
        ({"seed": 2**64}, "a whole number of 64 bits"),
        ({"stop": [3]}, r"stop texts are strings and must not be empty; given: \[3\]"),
        ({"timeout": "5"}, "timeout is '5'; accepted: seconds above 0, or None"),
        ({"logprobs": 5}, "logprobs is 5; accepted: True or False; top_logprobs tells how many"),
    ],
)
def test_an_argument_of_another_type_is_named(llm: MiniCPM, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        llm.chat(HELLO, **arguments)


def test_prompts_and_messages_of_another_type_are_named(llm: MiniCPM) -> None:
    with pytest.raises(TypeError, match="prompt is of type NoneType; give a text"):
        llm.complete(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="given dict; for a dict, ChatMessage"):
        llm.chat([{"role": "user", "content": "hello"}])  # type: ignore[list-item]
    with pytest.raises(ValidationError, match=r"engine is of type str; give what minicpm_core\.load returns"):
        MiniCPM(engine="demo")


def test_limits_and_tokens_are_those_of_what_was_assigned(llm: MiniCPM, toy: Path) -> None:
    assert (llm.metadata.context_window, llm.to_payload()["context_window"]) == (512, 512)
    before = llm.tokenize("hello")
    llm.context_window = 64
    assert "context_window" not in llm.to_payload()
    assert llm.metadata.context_window == 64
    other = llm.model_copy(update={"model": "demo", "context_window": None})
    assert other.metadata.context_window == 4096
    assert other.tokenize("hello") != before == llm.tokenize("hello")


def test_a_model_that_cannot_be_meant_is_named(toy: Path) -> None:
    with pytest.raises(ValueError, match="model is empty; give a folder, a hub id"):
        MiniCPM(model="").load_engine()
    for model in ("demo", str(toy)):
        with pytest.raises(ValueError, match=f"revision='main' belongs to a hub id; {model} is a folder"):
            MiniCPM(model=model, revision="main").load_engine()
