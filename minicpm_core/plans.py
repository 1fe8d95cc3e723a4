"""What a caller asks of an answer (tools, schema, grammar), and the constraint and the reader that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from minicpm_core.guidance import Constraint
from minicpm_core.schemas import bound, lark_json, read_schema
from minicpm_core.tools import Tool, read_choice, read_tools

if TYPE_CHECKING:
    from minicpm_core.answers import CallReader
    from minicpm_core.dialects import Dialect

Grammar = str | Callable[[Callable[[str], str]], Constraint]
"""In Lark; or what makes a constraint of `GrammarTokenizer.marker`."""
_SAFETY = 0.4
"""Of the characters that the tokens left would hold in the prompt's language, those that a grammar may ask for."""


@dataclass(frozen=True)
class AnswerPlan:
    """What an answer may be.

    Args:
        dialect: the syntax of calls.
        shown: the tools that the prompt tells of.
        callable: those that may be called; none makes the answer words, or JSON of the schema.
        required: the answer is calls.
        parallel: there may be several calls.
        schema: the JSON schema of the answer where it is no call.
        grammar: a grammar of the whole answer, instead of tools and schema.
        forbidden: calls were asked not to come, though the conversation may be full of them.
    """

    dialect: Dialect
    shown: tuple[Tool, ...] = ()
    callable: tuple[Tool, ...] = ()
    required: bool = False
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    grammar: Grammar | None = None
    forbidden: bool = False

    @property
    def openings(self) -> tuple[str, ...]:
        """The texts that begin a call; the empty one where the answer is calls from its first character."""
        if not self.callable or self.required:
            return ("",) if self.callable else ()
        if self.schema is None:
            return (self.dialect.opening,)
        # An answer in JSON may begin like a call in JSON; with the tool's name and what follows it does not.
        return tuple(_begin(self.dialect, tool) for tool in self.callable)

    @property
    def read_calls(self) -> Callable[[], CallReader] | None:
        """What makes the reader of calls."""
        return partial(self.dialect.reader, self.callable) if self.callable else None

    def constrain(self, marker: Callable[[str], str], characters: float) -> Constraint | None:
        """Return what the answer has to follow, None where it is free text.

        Args:
            marker: the Lark expression of a marker text.
            characters: of the prompt per token.
        """
        if callable(self.grammar):
            return self.grammar(marker)
        if self.grammar is not None:
            grammar = self.grammar
            return Constraint(lambda tokens: grammar)

        def write(tokens: int) -> str:
            room = max(int(tokens * characters * _SAFETY), 16)
            start, rules = [], []
            if self.callable:
                start.append("calls")
                rules.append(self.dialect.grammar(self.callable, room=room, parallel=self.parallel, marker=marker))
            if self.schema is not None and not self.required:
                start.append("answer")
                rules.append(f"answer: {lark_json(bound(self.schema, room))}")
            return "\n".join([f"start: {' | '.join(start)}", *rules])

        if self.required or self.schema is not None:
            return Constraint(write)
        if self.callable:
            return Constraint(write, opening=self.dialect.opening)
        if self.forbidden and self.dialect.opening[0] != "{":  # a brace begins other texts as well
            return Constraint(write, opening=self.dialect.opening, forbidden=True)
        return None


def plan_answer(
    dialect: Dialect,
    *,
    tools: Sequence[Any] | None,
    tool_choice: Any,
    parallel_tool_calls: bool,
    response_schema: Any,
    grammar: Grammar | None,
) -> AnswerPlan:
    """Read the options of a call.

    Raises:
        ValueError: an option is not accepted, or two of them contradict each other.
        TypeError: a schema of a kind that is not known.
    """
    known = read_tools(tools or ())
    choice = read_choice(tool_choice, known)
    schema = None if response_schema is None else read_schema(response_schema)
    if grammar is not None:
        if known or schema is not None:
            raise ValueError("grammar= describes the whole answer; leave out tools and response_schema")
        return AnswerPlan(dialect, grammar=grammar)
    if choice.mode == "none":  # a model that is shown tools would write calls nevertheless
        return AnswerPlan(dialect, schema=schema, forbidden=bool(known))
    return AnswerPlan(dialect, known, choice.tools, choice.mode == "required", bool(parallel_tool_calls), schema)


def _begin(dialect: Dialect, tool: Tool) -> str:
    return dialect.write_call(tool.name, {}).partition("{}")[0] if dialect.opening[0] == "{" else dialect.opening
