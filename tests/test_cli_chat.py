"""`minicpm chat`: long conversations, messages that are too long, and terminals that know few characters."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from minicpm_app import chat
from minicpm_app.cli import main

SHORT = ["--model", "demo", "--context-window", "64", "--max-tokens", "8"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_conversation_goes_on_when_the_window_is_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello!\n" * 5))
    assert main(["chat", *SHORT, "--json"]) == 0
    lengths = [json.loads(line)["usage"]["input_tokens"] for line in capsys.readouterr().out.splitlines()]
    assert len(lengths) == 5
    assert lengths[0] < max(lengths) <= 64 - 8


def test_the_oldest_turns_are_left_out() -> None:
    class Words:
        context_window, max_tokens = 16, 4

        def load_engine(self) -> Any:
            return self

        def get_num_tokens_from_messages(self, messages: list[Any]) -> int:
            return sum(len(message.content.split()) for message in messages)

    first = [HumanMessage("one two three four"), AIMessage("five six")]
    second = [HumanMessage("seven eight"), AIMessage("nine")]
    system, last = SystemMessage("be brief"), HumanMessage("a b c d")
    assert chat.fit_turns([system, *second, last], Words()) == [system, *second, last]
    assert chat.fit_turns([system, *first, *second, last], Words()) == [system, *second, last]
    assert chat.fit_turns([*first, *second, HumanMessage("x " * 20)], Words()) == [HumanMessage("x " * 20)]


def test_a_message_that_is_too_long_does_not_end_a_conversation_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(chat, "_lines", lambda: iter(["word " * 100, "Hello!"]))
    assert main(["chat", *SHORT]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("minicpm chat: error: the prompt has ")
    assert told.err.count("\n") == 1
    assert told.out.splitlines()[2] == "Hello! I am the M"


def test_characters_that_an_encoding_does_not_know_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("你好！\n"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert main(["chat", *SHORT, "--json"]) == 0
    assert json.loads(written.getvalue())["answer"].startswith("你好！我是")
    assert rb"\u4f60\u597d" in written.getvalue()
