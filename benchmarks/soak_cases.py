"""The requests of `benchmarks.soak`, and what is compared of their answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from minicpm_core import Chunk, Sampling


def _tool(name: str, text: str, **properties: str) -> dict[str, Any]:
    fields = {key: {"type": kind} for key, kind in properties.items()}
    schema = {"type": "object", "properties": fields, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}


TOOLS = [
    _tool("add", "Add two integers.", a="integer", b="integer"),
    _tool("get_weather", "Get the weather of a city.", city="string"),
]
_PASSAGES = "[1] The lamp has a warranty of two years.\n[2] The lamp costs 35 EUR.\n[3] The kettle holds one litre."


@dataclass(frozen=True)
class Case:
    """A request: the user's words and the engine's options."""

    text: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The prompt."""
        return [{"role": "user", "content": self.text}]


def make_cases(most: int) -> list[Case]:
    """Return the requests, of several kinds, whose answers have at most `most` tokens."""
    plain = [Case(f"{_PASSAGES}\n\nQuestion: {q}") for q in ("What does the lamp cost?", "How large is the kettle?")]
    plain += [Case(text) for text in ("Hello!", "Who are you?", "保修期是多长时间？", "What is the capital of France?")]
    stops = [
        Case(case.text, {"stop": [stop]}) for case, stop in zip(plain, ("lamp", " ", "e", "I", "。", "."), strict=True)
    ]
    tools = [Case(f"What is {a} plus {b}?", {"tools": TOOLS}) for a, b in ((17, 25), (3, 88))]
    tools += [
        Case(f"What is the weather in {city}?", {"tools": TOOLS, "tool_choice": "any"}) for city in ("Bonn", "Oslo")
    ]
    object_ = {"type": "object", "properties": {"price": {"type": "integer"}}, "required": ["price"]}
    schemas = [Case(f"{_PASSAGES}\n\nWhat does the lamp cost?", {"response_schema": object_})]
    sampling = Sampling(temperature=0, max_new_tokens=most)
    return [Case(c.text, c.options | {"sampling": sampling}) for c in [*plain, *stops, *tools, *schemas]]


def text_of(chunk: Chunk) -> str:
    """Return what is compared of an answer; ids of calls are drawn anew each time."""
    calls = [(call.name, call.text, call.arguments, call.error) for call in chunk.tool_calls]
    return json.dumps([chunk.content, chunk.reasoning, calls, chunk.finish_reason], ensure_ascii=False)


def begins(part: Chunk, whole: Chunk) -> bool:
    """Tell whether a part of an answer is the beginning of the whole."""
    pairs = zip(part.tool_calls, whole.tool_calls, strict=False)
    calls = len(part.tool_calls) <= len(whole.tool_calls) and all(
        a.name == b.name and b.text.startswith(a.text) for a, b in pairs
    )
    return calls and whole.content.startswith(part.content) and whole.reasoning.startswith(part.reasoning)
