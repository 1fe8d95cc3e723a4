"""What a family's way of writing tool calls consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from minicpm_core.dialects.reading import CallReader
from minicpm_core.tools import Tool

MAX_PARALLEL = 8
"""Most calls of one answer."""
Call = tuple[str, dict[str, Any]]
"""A tool's name and its arguments."""
Marker = Callable[[str], str]
"""Returns the Lark expression of a text that may be a special token of the tokenizer."""


class WriteGrammar(Protocol):
    """Returns Lark rules, of them `calls`: one call, or with `parallel` one to `MAX_PARALLEL`."""

    def __call__(self, tools: Sequence[Tool], *, room: int, parallel: bool, marker: Marker) -> str:
        """Return the rules; `room` is the characters for all calls."""
        ...


class WriteCalls(Protocol):
    """Returns calls as text; the tools' schemas settle how a value of several types is written."""

    def __call__(self, calls: Sequence[Call], tools: Sequence[Tool] = ()) -> str:
        """Return the text."""
        ...


@dataclass(frozen=True)
class Dialect:
    """A syntax of tool calls.

    Args:
        name: of the dialect.
        opening: text with which a call begins in free text.
        grammar: returns the Lark grammar of the calls; `room` is the characters for all of them.
        reader: returns a reader that turns the text of calls into tool calls.
        write_calls: returns calls as the model writes them.
        write_tools: returns system text that lists the tools, for templates that do not.
        write_result: returns the text of a tool's result, from the tool's name and the result.
        result_role: whose turn a result is.
        thought: markers of a thought before the calls.
    """

    name: str
    opening: str
    grammar: WriteGrammar
    reader: Callable[[Sequence[Tool]], CallReader]
    write_calls: WriteCalls
    write_tools: Callable[[Sequence[Tool]], str]
    write_result: Callable[[str, str], str]
    result_role: Literal["tool", "user"]
    thought: tuple[str, str] | None = None

    def write_call(self, name: str, arguments: dict[str, Any], tools: Sequence[Tool] = ()) -> str:
        """Return one call as the model writes it."""
        return self.write_calls([(name, arguments)], tools)


def count_calls(room: int, parallel: bool) -> tuple[int, int]:
    """Return how many calls there may be and the characters for the arguments of each."""
    return (MAX_PARALLEL, room // 2) if parallel else (1, room)
