"""Targets: the messages, tools and pictures that a program passes on, in the forms of both frameworks."""
# ruff: noqa: E501

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from tests.fuzzing.mutation import TEXTS, json_values
from tests.fuzzing.target import Target, attempt

_PARTS = (
    "text input_text output_text image image_url input_image video video_url file document input_file media text-plain audio "
    "input_audio tool_use tool_call tool_call_chunk invalid_tool_call function_call tool_result reasoning thinking "
    "redacted_thinking refusal citation server_tool_call server_tool_result non_standard search_result".split()
)
_KEYS = (
    "type text image image_url url path base64 data file file_data file_id source source_type mime_type media_type pages "
    "fps times together video name id input args arguments function call_id tool_use_id content is_error index extras "
    "detail title thinking signature reasoning".split()
)
_KWARGS = "tool_calls function_call invalid_tool_calls tool_call_id name status is_error reasoning_content audio refusal".split()


@lru_cache(maxsize=1)
def _png() -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 30)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _words() -> list[str]:
    picture = _png()
    urls = [
        "http://127.0.0.1:9/x.png",
        "https://[::ffff:10.0.0.1]/",
        "http://",
        "file:///nowhere.png",
        "ftp://a/b",
        "x://",
    ]
    data = [
        f"data:image/png;base64,{picture}",
        "data:image/png;base64,%%%",
        "data:,",
        "data:text/html,<p>",
        picture,
        "AAAA",
    ]
    more = [
        "look_up",
        "call_1",
        "image/png",
        "application/pdf",
        "video/mp4",
        "text/plain",
        '{"word": "a"}',
        '{"word": ',
    ]
    return [*TEXTS, *urls, *data, *more, *_PARTS]


def _parts() -> st.SearchStrategy[Any]:
    values = json_values(_words())
    sources = st.one_of(values, st.dictionaries(st.sampled_from(_KEYS), values, max_size=3))
    fields = st.dictionaries(st.sampled_from(_KEYS), sources, max_size=4)
    named = st.builds(lambda kind, rest: {**rest, "type": kind}, st.sampled_from(_PARTS), fields)
    texts = st.sampled_from(_words())
    whole = st.sampled_from(
        [
            {"type": "text", "text": "Hello"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_png()}"}},
            {"type": "image", "base64": _png(), "mime_type": "image/png"},
            {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {"word": "a"}},
            {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "R"}]},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0x"}},
        ]
    )
    return st.one_of(whole, named, named, fields, texts, values)


def _contents() -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(TEXTS), st.text(max_size=10), st.lists(_parts(), max_size=4), json_values())


def _calls() -> st.SearchStrategy[Any]:
    values = json_values(_words())
    known = st.sampled_from(
        [
            {"name": "look_up", "args": {"word": "a"}, "id": "call_1", "type": "tool_call"},
            {"name": "look_up", "args": '{"word": ', "id": "call_1", "error": "cut"},
            {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "a"}'}},
            {"id": None, "name": None, "arguments": None},
        ]
    )
    return st.lists(st.one_of(known, st.dictionaries(st.sampled_from(_KEYS), values, max_size=4), values), max_size=3)


def _tools() -> st.SearchStrategy[Any]:
    parameters = {"type": "object", "properties": {"word": {"type": "string"}}}
    known = [
        {"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters": parameters}},
        {"name": "look_up", "input_schema": parameters},
        {"title": "look_up", "type": "object", "properties": {}},
    ]
    keys = st.sampled_from("type function name title description parameters input_schema properties strict".split())
    values = json_values(("look_up", "object", "function", "string", *TEXTS))
    other = st.dictionaries(keys, st.one_of(values, st.dictionaries(keys, values, max_size=3)), max_size=4)
    choices = st.one_of(st.sampled_from((None, "auto", "any", "none", "look_up", True, False)), values)
    tools = st.one_of(st.just([]), st.lists(st.one_of(st.sampled_from(known), other, values), max_size=2))
    return st.fixed_dictionaries({"tools": tools, "tool_choice": choices})


def _conversations(kinds: tuple[str, ...], more: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    kwargs = st.dictionaries(st.sampled_from(_KWARGS), st.one_of(_calls(), json_values(_words())), max_size=2)
    message = st.fixed_dictionaries(
        {"kind": st.sampled_from(kinds), "content": _contents()}, optional={"additional_kwargs": kwargs, **more}
    )
    messages = st.lists(message, max_size=4)
    return st.builds(lambda talk, rest: {"messages": talk, **rest}, messages, st.one_of(st.just({}), _tools()))


@lru_cache(maxsize=1)
def engines() -> tuple[Any, Any]:
    """Return engines without weights, which check and encode: of a text model and of one that sees."""
    from minicpm_core import Engine
    from minicpm_core.checkpoints import load_tokenizer, open_checkpoint
    from tests.toy_tokenizers import write_tokenizer_of
    from tests.toy_vision import write_native

    folder = Path(tempfile.mkdtemp(prefix="minicpm-fuzz-"))
    write_native(folder, "minicpmv4_6", weights=False)
    write_tokenizer_of(folder, "minicpm-v-4.6")
    room: Any = SimpleNamespace(context_window=100_000, picture_cache=0)
    checkpoints = (open_checkpoint("demo"), open_checkpoint(folder, family="minicpm-v-4.6"))
    text, seeing = (Engine(checkpoint, None, load_tokenizer(checkpoint), room) for checkpoint in checkpoints)
    return text, seeing


def _ask(messages: list[dict[str, Any]], options: dict[str, Any], seen: Counter[str]) -> None:
    """Have the engines and a server's engine make their requests of the messages."""
    from minicpm_core.server.requests import make_request

    for engine in engines():
        request = attempt(lambda engine=engine: engine.prepare(messages, **options), seen)
        assert request is None or all(isinstance(number, int) for number in request.prompt_ids)
    asked = attempt(lambda: make_request("m", messages, **options), seen)
    assert asked is None or json.dumps(asked.body).encode()


def _check_langchain(example: Any) -> Counter[str]:
    from langchain_core import messages as forms

    from langchain_minicpm.convert import add_types, to_portable, to_template
    from langchain_minicpm.tools import to_tool, to_tool_choice

    classes = {
        "system": forms.SystemMessage, "human": forms.HumanMessage, "ai": forms.AIMessage, "tool": forms.ToolMessage,
        "function": forms.FunctionMessage, "chat": forms.ChatMessage, "remove": forms.RemoveMessage,
    }  # fmt: skip
    seen: Counter[str] = Counter()
    needed = {
        "tool": {"tool_call_id": "call_1"},
        "function": {"name": "f"},
        "chat": {"role": "user"},
        "remove": {"id": "1"},
    }
    messages = []
    try:
        for given in example["messages"]:
            fields = {key: value for key, value in given.items() if key != "kind"}
            messages.append(classes[given["kind"]](**{**needed.get(given["kind"], {}), **fields}))
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError):
        return seen  # LangChain itself does not make such a message
    attempt(lambda: to_portable(messages), seen)
    turns = attempt(lambda: to_template(add_types(messages)), seen)
    options: dict[str, Any] = {}
    if "tools" in example:
        try:
            tools = [to_tool(tool) for tool in example["tools"]]
        except Exception:  # LangChain's conversion raises what it likes
            return seen
        choice = attempt(lambda: to_tool_choice(example["tool_choice"], tools), seen)
        options = {"tools": tools, "tool_choice": choice or "auto"}
    if turns is not None:
        _ask(turns, options, seen)
    return seen


def _check_llamaindex(example: Any) -> Counter[str]:
    from llama_index.core.base.llms.types import ChatMessage

    from llamaindex_minicpm.convert import show_pictures, to_messages
    from llamaindex_minicpm.tools import describe_invalid, select_tools, to_tools

    seen: Counter[str] = Counter()
    messages = []
    try:
        for given in example["messages"]:
            fields = {key: value for key, value in given.items() if key != "kind"}
            if isinstance(fields.get("content"), list):
                fields["blocks"] = fields.pop("content")
            messages.append(ChatMessage(role=given["kind"], **fields))
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError):
        return seen  # LlamaIndex itself does not make such a message
    for message in messages:
        attempt(lambda message=message: select_tools(message), seen)
        attempt(lambda message=message: describe_invalid(message), seen)
    turns = attempt(lambda: to_messages(messages), seen)
    if turns is None:
        return seen
    tools = attempt(lambda: to_tools(example.get("tools", [])), seen)
    options = (
        {"tools": tools, "tool_choice": example["tool_choice"]} if tools is not None and "tools" in example else {}
    )
    _ask(turns, options, seen)
    if turns and isinstance(turns[-1]["content"], str):
        attempt(lambda: show_pictures(turns, [example.get("tool_choice")]), seen)
    return seen


def _check_dicts(example: Any) -> Counter[str]:
    seen: Counter[str] = Counter()
    options = {name: example[name] for name in ("tools", "tool_choice") if name in example}
    _ask(example["messages"], options, seen)
    return seen


def _dict_conversations() -> st.SearchStrategy[Any]:
    """Messages as the engine takes them: of any keys, and now and then no dicts at all."""
    keys = st.sampled_from(
        ("role", "content", "name", "tool_calls", "tool_call_id", "status", "reasoning_content", "x")
    )
    roles = st.sampled_from(("system", "user", "assistant", "tool"))
    usual = st.builds(
        lambda role, content, rest: {**rest, "role": role, "content": content},
        roles, _contents(), st.dictionaries(keys, st.one_of(_calls(), json_values(_words())), max_size=3),
    )  # fmt: skip
    other = st.one_of(st.dictionaries(keys, json_values(), max_size=3), json_values())
    messages = st.one_of(st.lists(st.one_of(usual, usual, usual, other), max_size=4), json_values())
    return st.builds(lambda talk, rest: {"messages": talk, **rest}, messages, st.one_of(st.just({}), _tools()))


_IDS = st.one_of(st.sampled_from(("call_1", "", "<|im_end|>")), st.text(max_size=4))
LANGCHAIN = Target(
    "langchain_messages",
    _conversations(
        ("system", "human", "ai", "ai", "tool", "function", "chat", "remove"),
        {
            "name": _IDS,
            "tool_calls": _calls(),
            "invalid_tool_calls": _calls(),
            "tool_call_id": _IDS,
            "status": st.sampled_from(("error", "success")),
            "role": st.sampled_from(("user", "developer", "x", "")),
        },
    ),
    _check_langchain,
)
LLAMAINDEX = Target(
    "llamaindex_messages",
    _conversations(
        ("system", "user", "assistant", "tool", "function", "developer", "model", "chatbot"),
        {
            "blocks": st.lists(
                st.builds(
                    lambda kind, fields: {**fields, "block_type": kind},
                    st.sampled_from(
                        "text image video document thinking tool_call audio cache citable citation x".split()
                    ),
                    st.dictionaries(
                        st.sampled_from(
                            "text image path url image_mimetype video fps data document_mimetype title content "
                            "tool_call_id tool_name tool_kwargs".split()
                        ),
                        json_values(_words()),
                        max_size=4,
                    ),
                ),
                max_size=3,
            )
        },
    ),
    _check_llamaindex,
)
DICTS = Target("engine_messages", _dict_conversations(), _check_dicts)
