"""Checks of tool calls: the calls of responses and streams, and conversations about them."""

from typing import Any, Literal

import pytest
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.tools import FunctionTool

from tests.conformance.llama_index_checks.base import Conformance, dump, gather, text_of


class Item(BaseModel):
    """A thing to order."""

    name: str
    count: int = Field(ge=1, le=9)


# LlamaIndex reads the annotations of these functions as they stand: no `from __future__ import annotations` here.


def magic_function(input: int) -> int:
    """Apply a magic function to a number."""
    return input + 2


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Tell the weather in a city."""
    return f"22 degrees {unit} in {city}"


def get_time() -> str:
    """Tell the time."""
    return "12:30"


def place_order(items: list[Item], note: str | None = None, express: bool = False) -> str:
    """Order things."""
    return f"{len(items)} things ordered"


def make_tools(*functions: Any, **options: Any) -> list[FunctionTool]:
    """Return the functions as tools; all four without arguments."""
    chosen = functions or (magic_function, get_weather, get_time, place_order)
    return [FunctionTool.from_defaults(function, **options) for function in chosen]


def check_calls(selections: Any, tools: list[FunctionTool]) -> None:
    """Check that all calls name a tool, follow its schema and have ids of their own."""
    known = {tool.metadata.name: tool.metadata for tool in tools}
    for call in selections:
        assert call.tool_name in known, f"{call.tool_name!r} is no tool of {sorted(map(str, known))}"
        metadata = known[call.tool_name]
        assert metadata.fn_schema is not None
        metadata.fn_schema.model_validate(call.tool_kwargs)
        assert set(call.tool_kwargs) <= set(metadata.get_parameters_dict()["properties"])
        assert call.tool_id
    ids = [call.tool_id for call in selections]
    assert len(set(ids)) == len(ids), f"calls share an id: {ids}"


class ToolTests(Conformance):
    """chat_with_tools and its relatives, get_tool_calls_from_response and predict_and_call."""

    request = "What is the result of magic_function for the number 3? Use the tool."

    def _required(self, **more: Any) -> dict[str, Any]:
        self.need("has_tool_calling", "has_tool_choice")
        return {"user_msg": self.request, "tool_required": True, **more}

    def test_required_call(self) -> None:
        """chat_with_tools(tool_required=True) gives exactly one valid call where calls are not parallel."""
        options, llm, tools = self._required(), self.create_caller(), make_tools()
        selections = llm.get_tool_calls_from_response(llm.chat_with_tools(tools, **options))
        check_calls(selections, tools)
        assert len(selections) == 1

    async def test_required_call_async(self) -> None:
        """achat_with_tools gives exactly one valid call."""
        options, llm, tools = self._required(), self.create_caller(), make_tools()
        selections = llm.get_tool_calls_from_response(await llm.achat_with_tools(tools, **options))
        check_calls(selections, tools)
        assert len(selections) == 1

    def test_required_call_in_a_stream(self) -> None:
        """Each chunk of a stream tells only whole calls, no call goes away again, and the last tells one."""
        options, llm, tools = self._required(), self.create_caller(), make_tools()
        self._check_stream(llm, list(llm.stream_chat_with_tools(tools, **options)), tools)

    async def test_required_call_in_an_async_stream(self) -> None:
        """The same of astream_chat_with_tools."""
        options, llm, tools = self._required(), self.create_caller(), make_tools()
        self._check_stream(llm, await gather(llm.astream_chat_with_tools(tools, **options)), tools)

    def _check_stream(self, llm: Any, responses: list[Any], tools: list[FunctionTool]) -> None:
        before: list[Any] = []
        for response in responses:
            selections = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
            check_calls(selections, tools)
            assert selections[: len(before)] == before, "a call of an earlier chunk changed or went away"
            before = selections
        assert len(before) == 1

    def test_streams_make_the_same_call(self) -> None:
        """The call of a stream is the call that is made without streaming."""
        self.need("is_deterministic")
        options, llm, tools = self._required(), self.create_caller(), make_tools()
        (one,) = llm.get_tool_calls_from_response(llm.chat_with_tools(tools, **options))
        last = list(llm.stream_chat_with_tools(tools, **options))[-1]
        (other,) = llm.get_tool_calls_from_response(last)
        assert (one.tool_name, one.tool_kwargs) == (other.tool_name, other.tool_kwargs)

    def test_parallel_calls(self) -> None:
        """With allow_parallel_tool_calls each of the calls is valid and has its own id."""
        options, llm, tools = self._required(allow_parallel_tool_calls=True), self.create_caller(), make_tools()
        selections = llm.get_tool_calls_from_response(llm.chat_with_tools(tools, **options))
        check_calls(selections, tools)
        assert selections

    def test_ids_are_unique_across_calls(self) -> None:
        """Two answers with the same call have two ids."""
        options, llm, tools = self._required(), self.create_caller(), make_tools(magic_function)
        answers = [llm.chat_with_tools(tools, **options) for _ in range(2)]
        ids = [llm.get_tool_calls_from_response(answer)[0].tool_id for answer in answers]
        assert ids[0] != ids[1]

    def test_named_tool(self) -> None:
        """tool_choice names the tool that is called."""
        options, llm, tools = self._required(), self.create_caller(), make_tools()
        for name in ("get_weather", "place_order"):
            response = llm.chat_with_tools(tools, **options, tool_choice=name)
            selections = llm.get_tool_calls_from_response(response)
            check_calls(selections, tools)
            assert [call.tool_name for call in selections] == [name]

    def test_choice_none(self) -> None:
        """tool_choice="none" gives text and no call."""
        self.need("has_tool_calling", "has_tool_choice")
        llm = self.create()
        response = llm.chat_with_tools(make_tools(), user_msg=self.request, tool_choice="none")
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        assert text_of(response)

    def test_no_call_is_an_error_on_request(self) -> None:
        """A response without calls gives [] or, with error_on_no_tool_call, a ValueError."""
        self.need("has_tool_calling")
        llm = self.create()
        response = llm.chat(self.ask())
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        with pytest.raises(ValueError, match=r"(?s)."):
            llm.get_tool_calls_from_response(response, error_on_no_tool_call=True)

    def test_calls_are_blocks_of_the_message(self) -> None:
        """The message has a ToolCallBlock for each call, with its id and arguments."""
        options, llm, tools = self._required(), self.create_caller(), make_tools()
        response = llm.chat_with_tools(tools, **options)
        blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        selections = llm.get_tool_calls_from_response(response)
        found = [(block.tool_call_id, block.tool_name, block.tool_kwargs) for block in blocks]
        assert found == [(call.tool_id, call.tool_name, call.tool_kwargs) for call in selections]

    def test_history_is_not_changed(self) -> None:
        """chat_with_tools changes neither the list nor the messages that it is given."""
        options, llm, tools = self._required(), self.create_caller(), make_tools(get_time)
        history = [ChatMessage(role="user", content="hello"), ChatMessage(role="assistant", content="hi")]
        before = dump(history)
        llm.chat_with_tools(tools, chat_history=history, **options)
        list(llm.stream_chat_with_tools(tools, chat_history=history, **options))
        assert dump(history) == before

    def test_history_alone(self) -> None:
        """Without user_msg the last message of the history is what is asked."""
        self._required()
        llm, tools = self.create_caller(), make_tools(get_time)
        response = llm.chat_with_tools(tools, chat_history=self.ask("What time is it?"), tool_required=True)
        check_calls(llm.get_tool_calls_from_response(response), tools)

    def test_message_objects_as_user_msg(self) -> None:
        """user_msg may be a ChatMessage."""
        options, llm, tools = self._required(), self.create_caller(), make_tools(get_time)
        message = ChatMessage(role="user", blocks=[TextBlock(text="What time"), TextBlock(text="is it?")])
        response = llm.chat_with_tools(tools, **{**options, "user_msg": message})
        check_calls(llm.get_tool_calls_from_response(response), tools)

    def test_tools_without_arguments(self) -> None:
        """The call of a tool without parameters has the arguments {}."""
        options, llm, tools = self._required(), self.create_caller(), make_tools(get_time)
        (call,) = llm.get_tool_calls_from_response(llm.chat_with_tools(tools, **options))
        assert (call.tool_name, call.tool_kwargs) == ("get_time", {})

    def test_nested_arguments(self) -> None:
        """Lists of objects, limits, unions, booleans and defaults follow the schema."""
        options, llm, tools = self._required(), self.create_caller(), make_tools(place_order)
        selections = llm.get_tool_calls_from_response(llm.chat_with_tools(tools, **options))
        check_calls(selections, tools)
        assert isinstance(selections[0].tool_kwargs["items"], list)

    def test_unusual_names(self) -> None:
        """Tools whose names have dashes or dots-free Unicode can be called by these names."""
        options, llm = self._required(), self.create_caller()
        tools = make_tools(get_time, name="get-the-time")
        (call,) = llm.get_tool_calls_from_response(llm.chat_with_tools(tools, **options))
        assert call.tool_name == "get-the-time"

    def test_many_tools(self) -> None:
        """Thirty tools at once are offered, and one of them is called."""
        options, llm = self._required(), self.create_caller()
        tools = [FunctionTool.from_defaults(get_time, name=f"tool_{number}") for number in range(30)]
        check_calls(llm.get_tool_calls_from_response(llm.chat_with_tools(tools, **options)), tools)

    def test_short_budgets(self) -> None:
        """With too few tokens for a call there is none rather than half a one; with error_on_no_tool_call an error."""
        options, llm, tools = self._required(), self.create_caller(), make_tools(place_order)
        for limit in (1, 5, 20):
            for response in llm.stream_chat_with_tools(tools, **options, max_tokens=limit):
                check_calls(llm.get_tool_calls_from_response(response, error_on_no_tool_call=False), tools)
        with pytest.raises(ValueError, match=r"(?s)."):
            llm.get_tool_calls_from_response(llm.chat_with_tools(tools, **options, max_tokens=1))

    def test_usage_of_calls(self) -> None:
        """A response with a call counts its tokens, those of the tools included."""
        self.need("has_token_usage")
        options, llm = self._required(), self.create_caller()
        usage = llm.chat_with_tools(make_tools(), **options).raw["usage"]
        assert usage["prompt_tokens"] > self.create().chat(self.ask(self.request)).raw["usage"]["prompt_tokens"]
        assert usage["completion_tokens"] > 0

    def test_raw_of_calls_is_plain(self) -> None:
        """`raw` of responses with calls is None or a dict: agents refuse anything else."""
        options, llm = self._required(), self.create_caller()
        for response in llm.stream_chat_with_tools(make_tools(), **options):
            assert response.raw is None or isinstance(response.raw, dict)

    def test_predict_and_call(self) -> None:
        """predict_and_call executes the chosen tool once and returns its result."""
        self._required()
        response = self.create_caller().predict_and_call(
            make_tools(get_time), user_msg="What time is it?", tool_required=True
        )
        assert [source.tool_name for source in response.sources] == ["get_time"]
        assert response.response == "12:30"

    async def test_apredict_and_call(self) -> None:
        """apredict_and_call does the same."""
        self._required()
        tools = make_tools(get_time)
        response = await self.create_caller().apredict_and_call(tools, user_msg="What time is it?", tool_required=True)
        assert response.response == "12:30"

    def test_predict_and_call_never_executes_half_a_call(self) -> None:
        """predict_and_call raises when the budget is too short for a call, and calls nothing."""
        self._required()
        called: list[str] = []

        def send(text: str, address: str) -> str:
            """Send a text."""
            called.append(text)
            return "sent"

        with pytest.raises(ValueError, match=r"(?s)."):
            self.create_caller().predict_and_call(
                make_tools(send), user_msg="Send it", tool_required=True, max_tokens=2
            )
        assert called == []
