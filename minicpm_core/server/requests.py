"""From the engine's arguments to the body of an OpenAI-compatible request."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minicpm_core.messages import check_messages
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.schemas import read_schema
from minicpm_core.tools import Choice, Tool, read_choice, read_tools
from minicpm_core.types import Message, Prompt, Sampling

EXTRA = {"top_k": ("top_k",), "repetition_penalty": ("repetition_penalty", "repeat_penalty")}
"""Sampling values beside OpenAI's own, and their names: the second one is that of llama.cpp and LM Studio."""


@dataclass(frozen=True)
class ServerRequest:
    """What a server is asked.

    Args:
        body: the arguments of `chat.completions.create`, or of `completions.create` where it has a "prompt".
        tools: those that may be called, to check the calls by.
    """

    body: Mapping[str, Any]
    tools: tuple[Tool, ...] = ()


def make_request(
    model: str,
    messages: Prompt,
    *,
    tools: Sequence[Any] | None = None,
    tool_choice: Any = "auto",
    parallel_tool_calls: bool = True,
    response_schema: Any = None,
    grammar: str | None = None,
    sampling: Sampling | None = None,
    stop: Sequence[str] | None = None,
    enable_thinking: bool | None = None,
    logprobs: int | None = None,
    pictures: PictureSettings | None = None,
) -> ServerRequest:
    """Return the request; the arguments are those of `Engine.prepare`.

    Raises:
        ValueError: an option that is not accepted, or that no OpenAI-compatible server takes.
    """
    if isinstance(stop, str):
        raise ValueError(f"stop is the string {stop!r}; give a list of strings")
    if grammar is not None:
        raise ValueError("a server takes no Lark grammar; leave grammar out, or load the model without base_url")
    known = read_tools(tools or ())
    choice = read_choice(tool_choice, known)
    body: dict[str, Any] = {"model": model} | _sampling(sampling or Sampling())
    if stop:
        body["stop"] = list(stop)
    if isinstance(messages, str):
        if choice.tools or response_schema is not None:
            raise ValueError("a text that is completed as it stands has no tools and no schema; give chat messages")
        return ServerRequest(body | {"prompt": messages} | ({} if logprobs is None else {"logprobs": logprobs}))
    body["messages"] = to_openai(messages, pictures)
    if choice.tools:
        body |= _tools(known, choice)
        if not parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if response_schema is not None:
        schema = {"name": "answer", "schema": read_schema(response_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if logprobs is not None:
        body |= {"logprobs": True} | ({"top_logprobs": logprobs} if logprobs else {})
    if enable_thinking is not None:
        body.setdefault("extra_body", {})["chat_template_kwargs"] = {"enable_thinking": enable_thinking}
    return ServerRequest(body, choice.tools)


def with_older_schema(request: ServerRequest, said: str) -> ServerRequest | None:
    """Return the request with its schema in the form of servers that know no "json_schema", as llama-cpp-python's.

    None where that is not what the server, of which `said` is the answer, refused.
    """
    form = request.body.get("response_format", {})
    if form.get("type") != "json_schema" or not ("response_format" in said and "json_object" in said):
        return None
    older = {"type": "json_object", "schema": form["json_schema"]["schema"]}
    return replace(request, body={**request.body, "response_format": older})


def _sampling(sampling: Sampling) -> dict[str, Any]:
    values = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "max_tokens": sampling.max_new_tokens,
    }
    extra = {
        name: value for own, names in EXTRA.items() if (value := getattr(sampling, own)) is not None for name in names
    }
    given = {name: value for name, value in values.items() if value is not None}
    return given | ({"extra_body": extra} if extra else {})


def _tools(known: Sequence[Tool], choice: Choice) -> dict[str, Any]:
    functions = [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in known]
    named = {"type": "function", "function": {"name": choice.tools[0].name}}
    one = choice.mode == "required" and len(choice.tools) == 1  # by its name, which more servers obey than "required"
    return {
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": named if one else choice.mode,
    }


def to_openai(messages: Sequence[Message], pictures: PictureSettings | None = None) -> list[dict[str, Any]]:
    """Return messages in OpenAI's form: pictures as data URIs, arguments of calls as JSON."""
    return [_message(message) for message in check_messages(messages, vision=True, settings=pictures)]


def _message(message: Message) -> dict[str, Any]:
    content = message["content"]
    made: dict[str, Any] = {
        "role": message["role"],
        "content": content if isinstance(content, str) else [_part(part) for part in content],
    }
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [_call(call, n) for n, call in enumerate(calls)]
        made["content"] = made["content"] or None
    if message["role"] == "tool":
        made["tool_call_id"] = str(message.get("tool_call_id") or message.get("id") or "call_0")
    return made


def _call(call: Mapping[str, Any], n: int) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    made = {"name": str(function["name"]), "arguments": text}
    return {"id": str(call.get("id") or f"call_{n}"), "type": "function", "function": made}


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not hasattr(part, "getbbox"):
        raise ValueError("a server is sent pictures, not videos; give some of its frames as pictures")
    content = io.BytesIO()
    part.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
