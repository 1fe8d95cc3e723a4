"""Structured output: a model bound to a schema, and the parser of what it answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import AddableDict, Runnable, RunnableGenerator
from langchain_core.utils.json import parse_partial_json
from pydantic import BaseModel, ValidationError
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import ValidationError as ValidationErrorV1

from langchain_minicpm.tools import ToolLike, to_json_schema, to_response_format, to_tool
from minicpm_core.types import IncompleteOutputError

if TYPE_CHECKING:
    from langchain_minicpm.chat_models import ChatMiniCPM

Method = Literal["json_schema", "function_calling", "json_mode"]
SchemaLike = Mapping[str, Any] | type
_METHODS = ("json_schema", "function_calling", "json_mode")


def build_structured(
    model: ChatMiniCPM,
    schema: SchemaLike | None,
    *,
    include_raw: bool,
    method: Method,
    strict: bool | None,
    tools: Sequence[ToolLike] | None,
    **options: Any,
) -> Runnable[Any, Any]:
    """Return `model` bound to the schema, and its parser; see `ChatMiniCPM.with_structured_output`."""
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}; accepted: {', '.join(_METHODS)}")
    if schema is None and method != "json_mode":
        raise ValueError(f"method {method!r} needs a schema: a pydantic class, a TypedDict or a JSON schema")
    if tools and method != "json_schema":
        raise ValueError(f'tools go with method "json_schema" only, and method is {method!r}')
    json_schema = {"type": "object"} if schema is None else _titled(to_json_schema(schema))
    named = schema if isinstance(schema, type) else json_schema
    options["ls_structured_output_format"] = {"kwargs": {"method": method, "strict": strict}, "schema": named}
    name = None
    if method == "function_calling":
        tool = to_tool(named)
        name = tool["function"]["name"]
        bound = model.bind_tools([tool], tool_choice=name, parallel_tool_calls=False, **options)
    else:
        response_format = to_response_format(json_schema)
        if strict is not None:
            response_format["json_schema"]["strict"] = strict
        options["response_format"] = response_format
        bound = model.bind_tools(tools or [], **options)
    parser = StructuredOutputParser(json_schema=json_schema, schema_class=_model_class(schema), tool_name=name)
    if include_raw:
        keeper = _RawKeeper(parser)
        return bound | RunnableGenerator(keeper.transform, keeper.atransform)
    return bound | parser


class StructuredOutputParser(BaseCumulativeTransformOutputParser[Any]):
    """Reads an answer that follows a schema; in a stream, what there is of it so far."""

    json_schema: dict[str, Any]
    schema_class: Any = None
    """A pydantic class, whose instances are returned; None returns what the JSON says."""
    tool_name: str | None = None
    """The tool of whose call the answer is the arguments; None reads the answer's text."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the answer; None where there is nothing of it yet, or tools were called instead.

        Raises:
            OutputParserException: the answer was cut off, is no JSON or does not follow the schema.
        """
        message = result[0].message if isinstance(result[0], ChatGeneration) else AIMessage(result[0].text)
        if partial and "finish_reason" not in message.response_metadata:
            return self._read_partial(message)
        text = self._find_text(message)
        return None if text is None else self._read_whole(text, message.response_metadata.get("finish_reason"))

    def parse(self, text: str) -> Any:
        """Return the answer that a text holds."""
        return self.parse_result([Generation(text=text)])

    def _read_partial(self, message: BaseMessage) -> Any:
        if self.tool_name is not None:
            value = next((call["args"] for call in getattr(message, "tool_calls", ())), None)
        elif not (text := message.text.strip()):
            return None
        else:
            try:
                value = parse_partial_json(text)
            except ValueError:
                return None
        if self.schema_class is None or value is None:
            return value
        try:
            return _validate(self.schema_class, value)
        except (ValidationError, ValidationErrorV1):
            return None

    def _find_text(self, message: BaseMessage) -> str | None:
        calls, invalid = getattr(message, "tool_calls", ()), getattr(message, "invalid_tool_calls", ())
        if self.tool_name is None and (message.text.strip() or calls):
            return message.text if message.text.strip() else None
        for call in calls:
            if call["name"] == self.tool_name:
                return json.dumps(call["args"], ensure_ascii=False)
        for call in invalid:
            text = call["args"] or ""
            if message.response_metadata.get("finish_reason") == "length":
                raise _cut_off(text)
            reason = call["error"] or "its arguments cannot be used"
            raise OutputParserException(
                f"the answer does not follow the schema: {reason}. The text: {text}", llm_output=text
            )
        return message.text

    def _read_whole(self, text: str, finish_reason: str | None) -> Any:
        try:
            value = json.loads(text)
        except ValueError as error:
            if finish_reason == "length":
                raise _cut_off(text)  # noqa: B904  its cause is IncompleteOutputError
            raise OutputParserException(f"the answer is no JSON: {text[:200]!r}", llm_output=text) from error
        if self.schema_class is not None:
            try:
                return _validate(self.schema_class, value)
            except (ValidationError, ValidationErrorV1) as error:
                name = self.schema_class.__name__
                raise OutputParserException(
                    f"the answer is no {name}: {error}. The text: {text}", llm_output=text
                ) from error
        from minicpm_core.schemas import find_error

        if error_text := find_error(self.json_schema, value):
            raise OutputParserException(
                f"the answer does not follow the schema: {error_text}. The text: {text}", llm_output=text
            )
        return value


class _RawKeeper:
    """Gives the message beside what was parsed of it, and the error instead of raising it."""

    def __init__(self, parser: StructuredOutputParser) -> None:
        self.parser = parser

    def transform(self, messages: Iterator[Any]) -> Iterator[AddableDict]:
        whole = None
        for message in messages:
            whole = message if whole is None else whole + message
            yield AddableDict(raw=message)
        yield self._parse(whole)

    async def atransform(self, messages: AsyncIterator[Any]) -> AsyncIterator[AddableDict]:
        whole = None
        async for message in messages:
            whole = message if whole is None else whole + message
            yield AddableDict(raw=message)
        yield self._parse(whole)

    def _parse(self, message: Any) -> AddableDict:
        try:
            parsed = self.parser.parse_result([ChatGeneration(message=message)])
        except OutputParserException as error:
            return AddableDict(parsed=None, parsing_error=error)
        return AddableDict(parsed=parsed, parsing_error=None)


def _cut_off(text: str) -> OutputParserException:
    cause = IncompleteOutputError(text)
    error = OutputParserException(str(cause), llm_output=text)
    error.__cause__ = cause
    return error


def _titled(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with a title, which LangChain takes for its name."""
    return schema if "title" in schema else {"title": "response", **schema}


def _model_class(schema: Any) -> type | None:
    return schema if isinstance(schema, type) and issubclass(schema, (BaseModel, BaseModelV1)) else None


def _validate(model: Any, value: Any) -> Any:
    return model.model_validate(value) if issubclass(model, BaseModel) else model.parse_obj(value)
