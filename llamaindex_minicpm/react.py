"""A grammar for LlamaIndex's ReActAgent, whose text format small models do not keep by themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llamaindex_minicpm.tools import to_tools

_LABELS = "(.|\\n)*(Action|Answer|Observation):(.|\\n)*"


def react_grammar(tools: Sequence[Any], *, thought_tokens: int = 128, room: int = 600) -> str:
    """Return a Lark grammar of ReAct steps: a thought, then a call of one of the tools or the answer.

    Pass it to the model of the agent: `ReActAgent(tools=tools, llm=MiniCPM(grammar=react_grammar(tools)))`. Each step
    that ends within `max_tokens` can be read by the agent, whatever the weights; no stop text is needed.

    Args:
        tools: LlamaIndex tools, functions, pydantic classes or dicts.
        thought_tokens: most tokens of a thought.
        room: characters that the arguments of a call may take, about.

    Raises:
        ValueError: there is no tool, a name cannot be written, or a schema allows nothing finite.
    """
    from minicpm_core.schemas import bound, lark_json
    from minicpm_core.tools import read_tools

    read = read_tools(to_tools(tools))
    if not read:
        raise ValueError("there are no tools; a ReAct step calls one of them")
    lines = [
        'start: "Thought: " thought "\\n" (call | "Answer: " ANSWER)',
        f"thought[max_tokens={thought_tokens}]: THOUGHT",  # characters counted by the regex would make it slow
        f"THOUGHT: /\\S[^\\n]*/ & ~/{_LABELS}/",
        "ANSWER: /\\S(.|\\n)*/ & ~/(.|\\n)*Observation:(.|\\n)*/",
        "call: " + " | ".join(f"call_{number}" for number in range(len(read))),
    ]
    for number, tool in enumerate(read):
        head = json.dumps(f"Action: {tool.name}\nAction Input: ", ensure_ascii=False)
        closed = {"additionalProperties": False, **tool.parameters}  # a tool without parameters takes {}
        lines += [f"call_{number}: {head} input_{number}", f"input_{number}: {lark_json(bound(closed, room))}"]
    return "\n".join(lines) + "\n"
