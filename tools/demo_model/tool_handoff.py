"""Training examples of handing a request over to another agent, as the agent workflows of LlamaIndex ask for it."""

from __future__ import annotations

from random import Random

from llama_index.core.agent.workflow.prompts import DEFAULT_HANDOFF_OUTPUT_PROMPT, DEFAULT_HANDOFF_PROMPT

from minicpm_core.rag import Language
from tools.demo_model import lexicon_en
from tools.demo_model.encoding import Example
from tools.demo_model.tool_requests import make_request
from tools.demo_model.tool_schemas import Call, Parameter, Tool
from tools.demo_model.tool_tasks import Turn, assemble, draw_others, draw_tool

_PARAMETERS = (Parameter("to_agent", "words"), Parameter("reason", "words"))
_DUTIES = ("Greets people", "Small talk", "Answers questions", "Writes texts", "Routes requests", "Helps with anything")


def _agent_name(rng: Random, tool: Tool) -> str:
    """Return the name of the agent that has `tool`."""
    words = tool.name.replace("-", "_").split("_")
    draw = rng.random()
    if draw < 0.35:
        return words[-1].lower()
    if draw < 0.5:
        return f"{words[-1]}_agent".lower() if rng.random() < 0.5 else f"{words[-1].capitalize()}Agent"
    return lexicon_en.invent_name(rng).lower() if draw < 0.75 else rng.choice(lexicon_en.PEOPLE)


def _handoff_tool(rng: Random, agents: dict[str, str]) -> Tool:
    """Return the tool that hands a request over to one of `agents` (name: what it does)."""
    return Tool("handoff", DEFAULT_HANDOFF_PROMPT.format(agent_info=str(agents)), _PARAMETERS, (), "en", "handoff")


def ask_handoff(rng: Random, progress: float, language: Language) -> Example:
    """Ask for what another agent does: hand it over, or, where that was done, call the tool that serves it."""
    tool = draw_tool(rng, language)
    request, call = make_request(rng, tool)
    agents = {_agent_name(rng, tool): tool.description.rstrip(".")}
    name = next(iter(agents))
    reason = DEFAULT_HANDOFF_OUTPUT_PROMPT
    for other in draw_others(rng, tool, rng.choice((0, 0, 1, 1, 2))):
        agents.setdefault(_agent_name(rng, other), other.description.rstrip("."))
    if rng.random() < 0.2:
        agents.setdefault(rng.choice(lexicon_en.PEOPLE), rng.choice(_DUTIES))
    agents = dict(sorted(agents.items(), key=lambda _: rng.random()))
    handoff = _handoff_tool(rng, agents)
    handed = Call(handoff, {"to_agent": name, "reason": request})
    user = {"role": "user", "content": request}
    if rng.random() < 0.55:
        mates = draw_others(rng, tool, rng.choice((0, 0, 0, 1, 2)))
        tools = sorted([handoff, *mates], key=lambda _: rng.random())
        return assemble(rng, tools, [user], request, handed.text(), tools.index(handoff) + 1)
    tools = sorted([tool, *draw_others(rng, tool, rng.choice((0, 0, 1, 2)))], key=lambda _: rng.random())
    told = Turn(request, (handed,), (reason.format(to_agent=name, reason=request),)).messages()
    return assemble(rng, tools, told, request, call.text(), tools.index(tool) + 1)
