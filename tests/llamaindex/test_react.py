"""The ReAct grammar: whatever it allows, LlamaIndex's parser reads, and with the same values."""

import json
import random
from typing import Any, Literal

import pytest
from llama_index.core.agent.react.output_parser import ReActOutputParser
from llama_index.core.agent.react.types import ActionReasoningStep, ResponseReasoningStep
from llama_index.core.tools import FunctionTool
from llguidance import LLMatcher, LLTokenizer

from llamaindex_minicpm import react_grammar


def search(query: str, kind: Literal["web", "news"] = "web", limits: list[float] | None = None) -> str:
    """Search."""
    return query


def now() -> str:
    """Tell the time."""
    return "12:30"


TOOLS = [FunctionTool.from_defaults(search), FunctionTool.from_defaults(now, name="what-time_ist.es")]
BYTES = LLTokenizer("byte")


def walk(grammar: str, seed: int, most: int = 3000) -> tuple[str, bool]:
    """Return a random text that the grammar allows, and whether it is whole."""
    matcher, draw, ids = LLMatcher(BYTES, grammar), random.Random(seed), []
    assert not matcher.is_error(), matcher.get_error()
    while not matcher.is_stopped() and len(ids) < most:
        mask = matcher.compute_bitmask()
        allowed = [i for i in range(256) if mask[i // 8] >> (i % 8) & 1]
        if not allowed or (matcher.is_accepting() and draw.random() < 0.02):
            break
        ids.append(draw.choice(allowed))
        assert matcher.consume_tokens(ids[-1:])
    return bytes(ids).decode("utf-8", errors="replace"), matcher.is_accepting()


def accepts(grammar: str, text: str) -> bool:
    """Return whether the grammar allows a whole text."""
    matcher = LLMatcher(BYTES, grammar)
    return matcher.try_consume_tokens(BYTES.tokenize_str(text)) == len(text.encode()) and matcher.is_accepting()


def test_random_texts_of_the_grammar_are_read_with_their_values() -> None:
    grammar, parser, kinds = react_grammar(TOOLS, thought_tokens=30, room=60), ReActOutputParser(), set()
    for seed in range(80):
        text, whole = walk(grammar, seed)
        assert whole, text
        step = parser.parse(text)
        if isinstance(step, ActionReasoningStep):
            assert step.action in ("search", "what-time_ist.es")
            assert dict(step.action_input) == json.loads(text.rsplit("Action Input: ", 1)[1])
            kinds.add(step.action)
        else:
            assert isinstance(step, ResponseReasoningStep)
            assert step.response
            kinds.add("answer")
    assert kinds == {"search", "what-time_ist.es", "answer"}


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('Thought: I look it up.\nAction: search\nAction Input: {"query": "灯 \'x\' {y}"}', True),
        ('Thought: x\nAction: search\nAction Input: {"query": "a", "kind": "news", "limits": [0.5, 2]}', True),
        ("Thought: x\nAction: what-time_ist.es\nAction Input: {}", True),
        ("Thought: I know.\nAnswer: It is\n\n12:30, Action: none.", True),
        ('Thought: x\nAction: what-time_ist.es\nAction Input: {"a": 1}', False),
        ('Thought: x\nAction: search\nAction Input: {"query": "a"}\nObservation: 5', False),
        ('Thought: x\nAction: search\nAction Input: {"query": "a", "kind": "books"}', False),
        ("Thought: x\nAction: other\nAction Input: {}", False),
        ("Thought: the Answer: x\nAnswer: y", False),
        ("Thought: x\nAnswer: y\nObservation: z", False),
        ("Thought: \nAnswer: y", False),
        ("Answer: y", False),
    ],
)
def test_what_the_grammar_allows(text: str, allowed: bool) -> None:
    assert accepts(react_grammar(TOOLS), text) is allowed


def test_a_thought_has_its_room() -> None:
    grammar = react_grammar(TOOLS, thought_tokens=20)
    assert accepts(grammar, f"Thought: {'x' * 20}\nAnswer: y")
    assert not accepts(grammar, f"Thought: {'x' * 30}\nAnswer: y")


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no tools"):
        react_grammar([])
    with pytest.raises(ValueError, match=r"tool name 'f\(x\)'"):
        react_grammar([FunctionTool.from_defaults(now, name="f(x)")])
    with pytest.raises(ValueError, match="more than once: now"):
        react_grammar([now, now])


def test_dicts_and_functions_are_tools_too() -> None:
    plain: dict[str, Any] = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "boolean"}}}}
    grammar = react_grammar([plain, now])
    assert accepts(grammar, 'Thought: x\nAction: f\nAction Input: {"a": true}')
    assert accepts(grammar, "Thought: x\nAction: now\nAction Input: {}")
