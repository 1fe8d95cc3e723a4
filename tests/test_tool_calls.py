"""Tool calls and structured answers of random weights, of every family and dialect: valid, or reported."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from minicpm_core import Chunk, Engine, Sampling, ToolCall, load
from minicpm_core.sampler import Sampler
from tests.toy_families import CONFIGS, write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "count": {"type": "integer"},
        "kind": {"enum": ["a", "b", "<c>"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "price": {"type": ["number", "null"]},
        "inner": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
    "required": ["name", "count", "kind", "inner"],
}
TOOLS = [
    {"type": "function", "function": {"name": "make-thing", "description": "Makes.", "parameters": SCHEMA}},
    {"name": "now", "description": "The time."},
]
ASK = [{"role": "user", "content": "Make a thing."}]
VISION: dict[str, Callable[[Path], Path]] = {
    "minicpm-v-2.6": lambda folder: write_minicpmv(folder, "2.6"),
    "minicpm-v-4.5": lambda folder: write_minicpmv(folder, "4.5"),
    "minicpm-v-4.6": lambda folder: write_native(folder, "minicpmv4_6"),
}
DIALECTS = {
    "minicpm5": "minicpm5",
    "minicpm-llama": "json",
    "minicpm": "json",
    "minicpm-128k": "json",
    "minicpm-moe": "json",
    "minicpm-s": "json",
    "minicpm4": "python",
    "minicpm4.1": "python",
    "minicpm3": "python",
    "minicpm-v-2.6": "json",
    "minicpm-v-4.5": "hermes",
    "minicpm-v-4.6": "qwen3_coder",
}


def drawn(seed: int, tokens: int = 2000) -> Sampling:
    return Sampling(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=seed, max_new_tokens=tokens)


@pytest.fixture(scope="module", params=DIALECTS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    if write := VISION.get(request.param):
        write(folder)
    else:
        write_family(folder, request.param, max_position_embeddings=4096)
    with load(folder) as loaded:
        assert loaded.family.name == request.param
        yield loaded


def test_every_family_has_a_dialect() -> None:
    assert set(DIALECTS) == {*CONFIGS, *VISION}


def test_the_family_speaks_its_dialect(engine: Engine) -> None:
    assert engine.family.dialect.name == DIALECTS[engine.family.name]


@pytest.mark.parametrize("seed", range(2))
def test_a_forced_call_follows_its_schema(engine: Engine, seed: int) -> None:
    options: Any = {"tools": TOOLS, "tool_choice": "make-thing", "parallel_tool_calls": False}
    answer = engine.generate(ASK, sampling=drawn(seed), **options)
    assert (answer.content, answer.finish_reason, len(answer.tool_calls)) == ("", "tool_calls", 1)
    call = answer.tool_calls[0]
    assert call.error is None
    assert call.arguments is not None
    Draft202012Validator(SCHEMA).validate(call.arguments)
    assert call.arguments["name"]
    assert (call.name, json.loads(call.text)) == ("make-thing", call.arguments)
    assert answer.usage is not None
    assert answer.usage.forced_tokens > 0
    slow = engine.generate(ASK, sampling=drawn(seed), logprobs=0, **options)
    assert slow.usage is not None
    assert slow.usage.forced_tokens == 0
    assert len(slow.logprobs) == slow.usage.completion_tokens


@pytest.mark.parametrize("seed", range(2))
def test_any_call_is_one_of_the_tools(engine: Engine, seed: int) -> None:
    answer = engine.generate(ASK, sampling=drawn(seed), tools=TOOLS, tool_choice="any")
    assert answer.finish_reason == "tool_calls"
    assert 1 <= len(answer.tool_calls) <= 8
    for place, call in enumerate(answer.tool_calls):
        assert call.is_valid
        assert call.index == place
        schema = {"make-thing": SCHEMA, "now": {"maxProperties": 0}}[call.name]
        Draft202012Validator(schema).validate(call.arguments)
    assert len({call.id for call in answer.tool_calls}) == len(answer.tool_calls)


def test_a_tool_without_parameters_costs_one_step_at_most(engine: Engine) -> None:
    answer = engine.generate(ASK, sampling=drawn(0), tools=TOOLS, tool_choice="now", parallel_tool_calls=False)
    assert [(call.name, call.arguments, call.text) for call in answer.tool_calls] == [("now", {}, "{}")]
    assert answer.usage is not None
    assert answer.usage.completion_tokens - answer.usage.forced_tokens <= 1


@pytest.mark.parametrize("seed", range(2))
def test_a_structured_answer_follows_its_schema(engine: Engine, seed: int) -> None:
    answer = engine.generate(ASK, sampling=drawn(seed), response_schema=SCHEMA)
    assert (answer.finish_reason, answer.tool_calls) == ("stop", ())
    Draft202012Validator(SCHEMA).validate(json.loads(answer.content))


def test_tools_and_a_final_schema_in_one_grammar(engine: Engine) -> None:
    kinds = set()
    for seed in range(4):
        answer = engine.generate(ASK, sampling=drawn(seed), tools=TOOLS, response_schema=SCHEMA)
        if answer.tool_calls:
            assert answer.content == ""
            assert all(call.is_valid for call in answer.tool_calls)
        else:
            Draft202012Validator(SCHEMA).validate(json.loads(answer.content))
        kinds.add(answer.finish_reason)
    assert kinds <= {"tool_calls", "stop"}
    final = engine.generate(ASK, sampling=drawn(0), tools=TOOLS, tool_choice="none", response_schema=SCHEMA)
    Draft202012Validator(SCHEMA).validate(json.loads(final.content))


def test_pieces_add_up_in_every_way_of_asking(engine: Engine) -> None:
    options: Any = {"tools": TOOLS, "tool_choice": "make-thing", "sampling": drawn(1), "parallel_tool_calls": False}
    pieces = [call for chunk in engine.stream(ASK, **options) for call in chunk.tool_calls]
    first, *more, last = pieces
    assert (first.name, first.text, first.arguments, first.index) == ("make-thing", "", None, 0)
    assert len(more) >= 3
    assert all(not piece.name and piece.arguments is None and piece.id == first.id for piece in more)
    assert json.loads("".join(piece.text for piece in pieces)) == last.arguments
    whole = engine.generate(ASK, **options)
    assert sum((Chunk(tool_calls=(piece,)) for piece in pieces), Chunk()).tool_calls[0].text == whole.tool_calls[0].text
    assert asyncio.run(engine.agenerate(ASK, **options)).tool_calls[0].arguments == last.arguments
    batch = engine.generate_batch([ASK, ASK], **options)
    assert [answer.tool_calls[0].arguments for answer in batch] == [last.arguments, last.arguments]


def script(monkeypatch: pytest.MonkeyPatch, engine: Engine, text: str) -> None:
    """Let every answer be `text`, where the grammar allows it."""
    ids, end = engine._vocabulary.grammar.encode(text), min(engine._vocabulary.stop_ids)

    class Scripted(Sampler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.script = iter(ids)

        def draw(self, logits: Any, allowed: Any = None) -> int:
            wish = next(self.script, end)
            assert allowed is None or bool(allowed[wish]), f"the grammar refuses {engine.tokenizer.decode([wish])!r}"
            return wish

    monkeypatch.setattr("minicpm_core.answers.Sampler", Scripted)


def written(engine: Engine) -> tuple[str, dict[str, Any]]:
    arguments = {"name": '保 "x" </p', "count": -3, "kind": "<c>", "price": None, "inner": {"on": True}}
    calls = [("make-thing", arguments), ("now", {})]
    return engine.family.dialect.write_calls(calls, engine._show(TOOLS).shown), arguments


def test_a_call_that_is_cut_off_is_reported_and_never_whole(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"name": "abc", "count": 3, "kind": "a", "inner": {"on": False}}
    text = engine.family.dialect.write_calls([("make-thing", arguments)], engine._show(TOOLS).shown)
    options: Any = {"tools": TOOLS, "tool_choice": "make-thing", "parallel_tool_calls": False, "logprobs": 0}
    script(monkeypatch, engine, text)
    whole = engine.generate(ASK, sampling=drawn(0, 1000), **options)
    assert [(call.arguments, call.error) for call in whole.tool_calls] == [(arguments, None)]
    inside = len(engine._vocabulary.grammar.encode(text[: text.index("abc") + 2]))
    for tokens in (1, 3, inside):
        script(monkeypatch, engine, text)
        answer = engine.generate(ASK, sampling=drawn(0, tokens), **options)
        assert (answer.finish_reason, answer.content) == ("length", "")
        assert len(answer.tool_calls) == 1
        assert not answer.tool_calls[0].is_valid
        assert answer.tool_calls[0].arguments is None
        assert answer.tool_calls[0].error
        assert whole.tool_calls[0].text.startswith(answer.tool_calls[0].text) or tokens < 10


def test_free_text_may_end_in_calls(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    text, arguments = written(engine)
    script(monkeypatch, engine, "Let me see.\n" + text)
    answer = engine.generate(ASK, tools=TOOLS, logprobs=0)
    assert (answer.content, answer.finish_reason) == ("Let me see.", "tool_calls")
    assert [(call.name, call.arguments, call.error) for call in answer.tool_calls] == [
        ("make-thing", arguments, None),
        ("now", {}, None),
    ]


def test_without_tools_a_call_is_text(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = written(engine)
    script(monkeypatch, engine, "See: " + text)
    answer = engine.generate(ASK)
    assert (answer.content, answer.tool_calls, answer.finish_reason) == ("See: " + text, (), "stop")


def test_a_call_that_is_forbidden_does_not_come(engine: Engine) -> None:
    class Insisting(Sampler):
        """Wants to write the opening of a call again and again."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.wishes = engine._vocabulary.grammar.encode(engine.family.dialect.opening) * 20
            self.prompt = len(self._used)

        def draw(self, logits: Any, allowed: Any = None) -> int:
            place = len(self._used) - self.prompt
            return next((wish for wish in self.wishes[place:] if logits[wish] > float("-inf")), 5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minicpm_core.answers.Sampler", Insisting)
        answer = engine.generate(ASK, tools=TOOLS, tool_choice="none", sampling=drawn(0, 40))
        assert answer.tool_calls == ()
        assert (engine.family.dialect.opening in answer.content) == (engine.family.dialect.name == "json")


def test_a_stop_text_in_front_of_a_call_ends_the_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = written(engine)
    script(monkeypatch, engine, "Let me STOP here.\n" + text)
    answer = engine.generate(ASK, tools=TOOLS, stop=["STOP"], logprobs=0)
    assert (answer.content, answer.tool_calls, answer.finish_reason) == ("Let me ", (), "stop")
    script(monkeypatch, engine, text)
    inside = engine.generate(ASK, tools=TOOLS, stop=["make"], logprobs=0)  # not searched inside calls
    assert [call.name for call in inside.tool_calls] == ["make-thing", "now"]


def test_what_the_grammar_cannot_say_is_checked_afterwards(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "array", "items": {"type": "integer"}}}, "required": ["n"]}
    schema["properties"]["n"]["uniqueItems"] = True  # type: ignore[index]
    tools = [{"name": "sum", "parameters": schema}]
    text = engine.family.dialect.write_calls([("sum", {"n": [1, 1]})], engine._show(tools).shown)
    script(monkeypatch, engine, text)
    answer = engine.generate(ASK, tools=tools, logprobs=0)
    assert [(call.name, call.arguments, call.is_valid) for call in answer.tool_calls] == [("sum", {"n": [1, 1]}, False)]
    assert "non-unique" in (answer.tool_calls[0].error or "")
    assert answer.finish_reason == "stop"


def test_history_is_written_as_the_model_writes_it(engine: Engine) -> None:
    text, arguments = written(engine)
    calls = [
        {"id": "1", "type": "function", "function": {"name": "make-thing", "arguments": json.dumps(arguments)}},
        {"id": "2", "type": "function", "function": {"name": "now", "arguments": {}}},
    ]
    results = [
        {"role": "tool", "content": "made", "tool_call_id": "1"},
        {"role": "tool", "content": "no clock", "tool_call_id": "2", "status": "error"},
    ]
    prompt = engine.render([*ASK, {"role": "assistant", "content": "", "tool_calls": calls}, *results], tools=TOOLS)
    assert text in prompt
    assert "now" in prompt[: prompt.index("Make a thing.")]
    assert prompt.index(text) < prompt.index("made") < prompt.index("Error: no clock")


@pytest.mark.parametrize("name", VISION)
def test_a_picture_in_a_result_is_seen(tmp_path: Path, name: str) -> None:
    picture = Image.new("RGB", (40, 30), "red")
    call = {"id": "1", "function": {"name": "now", "arguments": {}}}
    result = {"role": "tool", "content": ["a clock:", {"type": "image", "image": picture}], "tool_call_id": "1"}
    with load(VISION[name](tmp_path)) as engine:
        turn = [*ASK, {"role": "assistant", "content": "", "tool_calls": [call]}, result]
        request = engine.prepare(turn, tools=TOOLS)
        assert len(request.pictures.pictures) == 1
        assert engine.generate(turn, tools=TOOLS, sampling=drawn(0, 3)).usage is not None


def test_calls_are_values() -> None:
    assert ToolCall("1", "f", {}).is_valid
    assert not ToolCall("1", "f", {}, error="no").is_valid
    assert not ToolCall("1", "f").is_valid
