"""Messages with tools, calls and results, as a checkpoint's chat template can render them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from minicpm_core.tools import Tool
from minicpm_core.types import Message

if TYPE_CHECKING:
    from minicpm_core.control_tokens import ControlTokens
    from minicpm_core.dialects import Dialect

SCHEMA_TEXT = "Answer only with JSON, in one line, that follows this JSON schema:\n{schema}"


@dataclass(frozen=True)
class TemplateSkills:
    """What a chat template renders by itself."""

    tools: bool
    calls: bool
    results: bool


@lru_cache(maxsize=16)
def read_skills(template: str) -> TemplateSkills:
    """Return what a chat template renders, told by the names and texts in it."""
    import jinja2
    from jinja2 import nodes

    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except jinja2.TemplateSyntaxError:  # transformers knows more tags; it decides whether the template can be used
        return TemplateSkills(*(name in template for name in ("tools", "tool_calls", "tool_response")))
    names = {node.name for node in tree.find_all(nodes.Name)}
    names |= {node.attr for node in tree.find_all(nodes.Getattr)}
    texts = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return TemplateSkills("tools" in names, bool({"tool_calls"} & (names | texts)), "tool" in texts)


def lay_out(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    schema: Mapping[str, Any] | None,
    dialect: Dialect,
    template: str,
    control: ControlTokens | None = None,
) -> tuple[list[Message], list[dict[str, Any]] | None]:
    """Return the messages as the template can render them, and the tools that it renders itself.

    Args:
        messages: checked messages; assistant turns may hold "tool_calls", tool turns are results.
        tools: what the model may call.
        schema: the JSON schema of the answer, which the model is told.
        dialect: writes what the template does not render.
        template: the chat template's source.
        control: puts seams into the names of control tokens, wherever texts from outside hold them.
    """
    skills = read_skills(template)
    cut: Callable[[Any], Any] = control.cut if control else _unchanged
    tools = [Tool(*map(cut, (tool.name, tool.description, tool.parameters))) for tool in tools]
    names: dict[str, str] = {}
    laid = []
    for message in messages:
        message = control.cut_message(message) if control else message
        for call in message.get("tool_calls") or ():
            names[cut(str(call.get("id")))] = cut(str((call.get("function") or call).get("name")))
        if message.get("tool_calls"):
            message = _with_calls(message, tools, dialect, cut, rendered=skills.calls)
        elif message["role"] == "tool":
            message = _result(message, names, dialect, rendered=skills.results)
        laid.append(message)
    texts = []
    if tools and not skills.tools:
        texts.append(dialect.write_tools(tools))
    if schema is not None:
        texts.append(SCHEMA_TEXT.format(schema=json.dumps(cut(schema), ensure_ascii=False)))
    if texts:
        laid = add_to_system(laid, "\n\n".join(texts))
    return laid, [_to_openai(tool) for tool in tools] if tools and skills.tools else None


def _unchanged(value: Any) -> Any:
    return value


def add_to_system(messages: Sequence[Message], text: str) -> list[Message]:
    """Return the messages with `text` at the end of the system message, which is made where there is none."""
    first, rest = (messages[0], messages[1:]) if messages[0]["role"] == "system" else ({"content": ""}, messages)
    return [{**first, "role": "system", "content": _join(first["content"], text, "\n\n")}, *rest]


def _to_openai(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _with_calls(
    message: Message, tools: Sequence[Tool], dialect: Dialect, cut: Callable[[Any], Any], *, rendered: bool
) -> Message:
    """Return an assistant's turn whose calls have a dict of arguments each; what cannot be read is shown as text."""
    calls, unread = [], []
    for call in message["tool_calls"]:
        function = call.get("function") or call
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            arguments = _read_object(arguments)
        elif arguments is None:
            arguments = {}
        if isinstance(arguments, Mapping):
            made = {"name": cut(str(function["name"])), "arguments": cut(dict(arguments))}
            calls.append({"id": cut(call.get("id")), "type": "function", "function": made})
        else:
            unread.append(cut(f"{function['name']} {function['arguments']}"))
    content = message["content"]
    for text in unread:
        content = _join(content, text, "\n")
    without = {key: value for key, value in message.items() if key != "tool_calls"}
    if not calls:
        return {**without, "content": content}
    if rendered:
        return {**without, "content": content, "tool_calls": calls}
    pairs = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
    return {**without, "content": _join(content, dialect.write_calls(pairs, tools), "\n")}


def _result(message: Message, names: Mapping[str, str], dialect: Dialect, *, rendered: bool) -> Message:
    """Return a tool's result; an error says that it is one."""
    content = message["content"]
    if message.get("status") == "error" and not (isinstance(content, str) and "error" in content[:40].lower()):
        content = _join("Error:", content, " ")
    name = message.get("name") or names.get(str(message.get("tool_call_id")), "")
    if rendered or dialect.result_role == "tool":
        return {**message, "content": content} | ({"name": name} if name else {})
    if isinstance(content, str):
        content = dialect.write_result(name, content)
    else:
        before, after = dialect.write_result(name, "\0").split("\0")
        content = [before, *content, after]
    return {"role": dialect.result_role, "content": content}


def _join(first: Any, second: Any, between: str) -> Any:
    """Return two contents, texts or lists of parts, as one."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return first + between + second
    return [*([first] if isinstance(first, str) else first), *([second] if isinstance(second, str) else second)]


def _read_object(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
