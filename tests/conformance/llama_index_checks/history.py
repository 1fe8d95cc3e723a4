"""Checks of conversations in which tools were called, and of what a trained model makes of tools."""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock

from tests.conformance.llama_index_checks.base import Conformance, dump, text_of
from tests.conformance.llama_index_checks.tools import get_time, get_weather, magic_function, make_tools


def _calls(*calls: tuple[str, str, dict[str, Any]]) -> ChatMessage:
    blocks = [ToolCallBlock(tool_call_id=i, tool_name=name, tool_kwargs=kwargs) for i, name, kwargs in calls]
    return ChatMessage(role="assistant", blocks=blocks)


def _result(call_id: str, text: str, **more: Any) -> ChatMessage:
    return ChatMessage(role="tool", content=text, additional_kwargs={"tool_call_id": call_id, **more})


class HistoryTests(Conformance):
    """Histories with calls and results, and the knowledge of trained models."""

    request = "What is the result of magic_function for the number 3? Use the tool."
    number_request, number = "What is magic_function of 3?", 3
    city_request, city = "What is the weather in 上海?", "上海"
    other_request = "Hello, who are you?"

    def _answer(self, *messages: ChatMessage, **options: Any) -> Any:
        self.need("has_tool_calling")
        history = [*self.ask(self.request), *messages]
        before = dump(history)
        response = self.create().chat_with_tools(make_tools(), chat_history=history, **options)
        assert dump(history) == before
        return response

    def test_result_in_the_history(self) -> None:
        """A call and its result, as FunctionAgent writes them, are understood."""
        response = self._answer(_calls(("1", "magic_function", {"input": 3})), _result("1", "5"))
        assert response.message.blocks

    def test_own_calls_in_the_history(self) -> None:
        """The message of an earlier response can be given back with its result."""
        self.need("has_tool_calling", "has_tool_choice")
        llm, tools = self.create_caller(), make_tools(magic_function)
        response = llm.chat_with_tools(tools, user_msg=self.request, tool_required=True)
        (call,) = llm.get_tool_calls_from_response(response)
        history = [*self.ask(self.request), response.message, _result(call.tool_id, "5")]
        assert self.create().chat_with_tools(tools, chat_history=history).message.blocks

    def test_parallel_results_in_the_history(self) -> None:
        """Two calls in one message and their two results are understood."""
        two = _calls(("1", "magic_function", {"input": 3}), ("2", "get_time", {}))
        assert self._answer(two, _result("1", "5"), _result("2", "12:30")).message.blocks

    def test_error_in_the_history(self) -> None:
        """A result that is an error is understood."""
        wrong = _calls(("1", "magic_function", {"input": 3}))
        assert self._answer(wrong, _result("1", "Error: no connection", is_error=True)).message.blocks

    def test_empty_result_in_the_history(self) -> None:
        """A result without any text is understood."""
        empty = ChatMessage(role="tool", blocks=[], additional_kwargs={"tool_call_id": "1"})
        assert self._answer(_calls(("1", "get_time", {})), empty).message.blocks

    def test_older_calls_in_the_history(self) -> None:
        """Calls in additional_kwargs, as older integrations write them, are understood."""
        function = {"name": "magic_function", "arguments": json.dumps({"input": 3})}
        kwargs = {"tool_calls": [{"id": "1", "type": "function", "function": function}]}
        older = ChatMessage(role="assistant", content="", additional_kwargs=kwargs)
        assert self._answer(older, _result("1", "5", name="magic_function")).message.blocks

    def test_calls_in_the_history_reach_the_model(self) -> None:
        """Each call and each result of the history makes the prompt longer."""
        self.need("has_token_usage")
        call, result = _calls(("1", "magic_function", {"input": 3})), _result("1", "5")
        counts = [self._answer(*m).raw["usage"]["prompt_tokens"] for m in ((), (call,), (call, result))]
        assert counts[0] < counts[1] < counts[2]

    def test_history_without_tools(self) -> None:
        """A history with calls can be answered by chat, without tools."""
        self.need("has_tool_calling")
        history = [*self.ask(self.request), _calls(("1", "magic_function", {"input": 3})), _result("1", "5")]
        assert text_of(self.create().chat(history))

    # What only a trained model can do

    def test_copies_a_number(self) -> None:
        """The model calls the right one of two tools with the number of the request."""
        self.need("has_tool_calling", "is_trained")
        llm = self.create_caller()
        response = llm.chat_with_tools(make_tools(magic_function, get_time), user_msg=self.number_request)
        (call,) = llm.get_tool_calls_from_response(response)
        assert (call.tool_name, call.tool_kwargs) == ("magic_function", {"input": self.number})

    def test_copies_a_name(self) -> None:
        """The model copies a Chinese name into the arguments, character by character."""
        self.need("has_tool_calling", "is_trained")
        llm = self.create_caller()
        response = llm.chat_with_tools(make_tools(get_weather, get_time), user_msg=self.city_request)
        (call,) = llm.get_tool_calls_from_response(response)
        assert (call.tool_name, call.tool_kwargs.get("city")) == ("get_weather", self.city)

    def test_makes_no_call_where_none_fits(self) -> None:
        """The model answers in words where no tool fits."""
        self.need("has_tool_calling", "is_trained")
        llm = self.create_caller()
        response = llm.chat_with_tools(make_tools(magic_function, get_time), user_msg=self.other_request)
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        assert text_of(response)

    def test_answers_when_the_result_is_there(self) -> None:
        """The model tells the result in words once it is there, and does not call again."""
        self.need("has_tool_calling", "is_trained")
        llm = self.create_caller()
        call = _calls(("1", "magic_function", {"input": self.number}))
        history = [*self.ask(self.number_request), call, _result("1", "4711")]
        response = llm.chat_with_tools(make_tools(magic_function, get_time), chat_history=history)
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        assert "4711" in text_of(response)
