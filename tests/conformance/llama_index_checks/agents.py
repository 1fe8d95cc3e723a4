"""Checks of LlamaIndex's agents and workflows with the model."""

from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentOutput, AgentWorkflow, FunctionAgent, ReActAgent, ToolCallResult

from tests.conformance.llama_index_checks.base import Conformance
from tests.conformance.llama_index_checks.structured import Person
from tests.conformance.llama_index_checks.tools import get_time, get_weather, magic_function, make_tools

OWN_WARNINGS = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""LlamaIndex's agents look at every attribute of their pydantic classes."""


def fail() -> str:
    """Fail."""
    raise RuntimeError("the tool is broken")


async def run(agent: Any, message: str, **options: Any) -> tuple[Any, list[Any]]:
    """Return an agent's output and its events."""
    handler = agent.run(user_msg=message, **options)
    events = [event async for event in handler.stream_events()]
    return await handler, events


class AgentTests(Conformance):
    """FunctionAgent, ReActAgent and AgentWorkflow."""

    agent_request, agent_result = "What is magic_function of 3?", "5"
    handoff_request = "What is the weather in Paris?"

    @pytest.mark.parametrize("streaming", [True, False])
    @OWN_WARNINGS
    async def test_function_agent_calls_its_tool(self, streaming: bool) -> None:
        """A FunctionAgent executes the call that it is made to begin with, and its result is the answer."""
        self.need("has_tool_calling", "has_tool_choice")
        tools = make_tools(get_time, return_direct=True)
        agent = FunctionAgent(
            tools=tools,
            llm=self.create_caller(),
            initial_tool_choice="get_time",
            allow_parallel_tool_calls=False,
            streaming=streaming,
            timeout=120,
        )
        output, events = await run(agent, "What time is it?")
        (result,) = [event for event in events if isinstance(event, ToolCallResult)]
        assert (result.tool_name, result.tool_kwargs, result.tool_output.content) == ("get_time", {}, "12:30")
        assert str(output) == "12:30"

    @OWN_WARNINGS
    async def test_function_agent_tells_errors_of_tools(self) -> None:
        """An error of a tool becomes a result that the agent goes on with."""
        self.need("has_tool_calling", "has_tool_choice")
        agent = FunctionAgent(
            tools=make_tools(fail),
            llm=self.create_caller(),
            initial_tool_choice="fail",
            early_stopping_method="generate",
        )
        output, events = await run(agent, "Use the tool", max_iterations=2)
        results = [event for event in events if isinstance(event, ToolCallResult)]
        assert results[0].tool_output.is_error
        assert "the tool is broken" in results[0].tool_output.content
        assert output.response.role == "assistant"

    @OWN_WARNINGS
    async def test_function_agent_without_tools_needed(self) -> None:
        """A FunctionAgent without tools answers in words."""
        self.need("has_tool_calling")
        output, _ = await run(FunctionAgent(tools=[], llm=self.create(), timeout=120), self.question)
        assert str(output)

    @OWN_WARNINGS
    async def test_workflow_from_functions(self) -> None:
        """AgentWorkflow.from_tools_or_functions makes a FunctionAgent of the model, and it answers."""
        self.need("has_tool_calling")
        workflow = AgentWorkflow.from_tools_or_functions([get_time], llm=self.create(), timeout=120)
        assert [type(agent) for agent in workflow.agents.values()] == [FunctionAgent]
        output, _ = await run(workflow, self.question, max_iterations=2, early_stopping_method="generate")
        assert isinstance(output, AgentOutput)

    @OWN_WARNINGS
    async def test_output_class(self) -> None:
        """output_cls gives the agent's answer as an object of the class."""
        self.need("has_tool_calling", "has_structured_output")
        agent = FunctionAgent(tools=[], llm=self.create_caller(), output_cls=Person, timeout=120)
        output, _ = await run(agent, "Ada is 36 years old.")
        assert isinstance(output.get_pydantic_model(Person), Person)

    @OWN_WARNINGS
    async def test_react_agent_keeps_the_format(self) -> None:
        """A ReActAgent's steps can all be read: no step has to be tried again, and each call follows a schema."""
        tools = make_tools(magic_function, get_weather)
        llm = self.create_react_llm(tools)
        if llm is None:
            pytest.skip("create_react_llm is not defined")
        agent = ReActAgent(tools=tools, llm=llm, early_stopping_method="generate", timeout=120)
        _, events = await run(agent, "Use magic_function with 3.", max_iterations=3)
        steps = [event for event in events if isinstance(event, AgentOutput)]
        assert steps
        assert not [step for step in steps if step.retry_messages]
        for result in (event for event in events if isinstance(event, ToolCallResult)):
            assert not result.tool_output.is_error, result.tool_output.content

    # What only a trained model can do

    @OWN_WARNINGS
    async def test_function_agent_answers(self) -> None:
        """A FunctionAgent calls the right tool with the right value and then tells its result."""
        self.need("has_tool_calling", "is_trained")
        agent = FunctionAgent(tools=make_tools(magic_function, get_time), llm=self.create_caller(), timeout=120)
        output, events = await run(agent, self.agent_request, max_iterations=4)
        results = [event for event in events if isinstance(event, ToolCallResult)]
        assert [(r.tool_name, r.tool_kwargs) for r in results] == [("magic_function", {"input": 3})]
        assert self.agent_result in str(output)

    @OWN_WARNINGS
    async def test_workflow_with_a_handoff(self) -> None:
        """One agent hands a question over to another, which calls its tool and answers."""
        self.need("has_tool_calling", "is_trained")
        clerk = FunctionAgent(
            name="clerk",
            description="Greets people",
            tools=[],
            llm=self.create_caller(),
            can_handoff_to=["weather"],
            initial_tool_choice="handoff",
        )
        weather = FunctionAgent(
            name="weather", description="Tells the weather", tools=make_tools(get_weather), llm=self.create_caller()
        )
        workflow = AgentWorkflow([clerk, weather], root_agent="clerk", timeout=120)
        output, events = await run(workflow, self.handoff_request, max_iterations=6)
        results = [event for event in events if isinstance(event, ToolCallResult)]
        assert [result.tool_name for result in results] == ["handoff", "get_weather"]
        assert results[0].tool_kwargs["to_agent"] == "weather"
        assert output.current_agent_name == "weather"
        assert "22" in str(output)
