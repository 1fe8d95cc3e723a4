"""Random schemas and random weights through the engine, in every dialect: valid or reported, and it always ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as adapt
from hypothesis import strategies as st

from minicpm_core import Chunk, Engine, Sampling, load
from minicpm_core.dialects import DIALECTS
from minicpm_core.schemas import find_error
from tests.test_dialect_fuzz import DEFS, EXAMPLES, SETTINGS, TOOLS, checked_later
from tests.toy_families import write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

WRITE: dict[str, Callable[[Path], Path]] = {
    "minicpm5": lambda folder: write_family(folder, "minicpm5", max_position_embeddings=8192),
    "python": lambda folder: write_family(folder, "minicpm4", max_position_embeddings=8192),
    "json": lambda folder: write_family(folder, "minicpm", max_position_embeddings=8192),
    "hermes": lambda folder: write_minicpmv(folder, "4.5"),
    "qwen3_coder": lambda folder: write_native(folder, "minicpmv4_6"),
}
ASK = [{"role": "user", "content": "Go."}]
COUNT = max(EXAMPLES // 4, 10)


@pytest.fixture(scope="module", params=WRITE)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with load(WRITE[request.param](tmp_path_factory.mktemp(request.param))) as loaded:
        assert loaded.family.dialect.name == request.param
        yield loaded


def test_the_dialects() -> None:
    assert set(WRITE) == {dialect.name for dialect in DIALECTS}


def ask(engine: Engine, seed: int, tokens: int, **options: Any) -> Chunk:
    values: Any = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    try:
        return engine.generate(ASK, sampling=Sampling(seed=seed, max_new_tokens=tokens, **values), **options)
    except ValueError as error:
        if "cannot be used" in str(error):  # a schema may be impossible, a grammar may not be broken
            raise
        return Chunk(finish_reason="stop")


def test_calls_are_valid_or_reported(engine: Engine) -> None:
    seen = {"valid": 0, "reported": 0, "cut": 0}

    @adapt(SETTINGS, max_examples=COUNT)
    @given(TOOLS, st.integers(0, 2**31), st.sampled_from([12, 1500, 1500]), st.booleans())
    def check(tools: list[Any], seed: int, tokens: int, single: bool) -> None:
        answer = ask(engine, seed, tokens, tools=tools, tool_choice="any", parallel_tool_calls=not single)
        assert answer.content == ""
        for call in answer.tool_calls:
            schema = next((tool["parameters"] for tool in tools if tool["name"] == call.name), None)
            if call.is_valid:
                assert find_error(schema, call.arguments) is None
                assert json.loads(call.text) == call.arguments
                seen["valid"] += 1
            elif call.arguments is not None:
                assert call.error
                assert checked_later(schema), (schema, call)
                seen["reported"] += 1
            else:
                assert call.error
                assert answer.finish_reason == "length"
                seen["cut"] += 1
        if answer.finish_reason == "tool_calls":
            assert any(call.is_valid for call in answer.tool_calls)

    check()
    print(engine.family.dialect.name, seen)
    assert seen["valid"] >= COUNT // 4
    assert seen["cut"] > 0


def test_structured_answers_are_valid_or_cut(engine: Engine) -> None:
    seen = {"whole": 0, "reported": 0, "cut": 0}

    @adapt(SETTINGS, max_examples=COUNT)
    @given(TOOLS, st.integers(0, 2**31), st.sampled_from([12, 1500, 1500]))
    def check(tools: list[Any], seed: int, tokens: int) -> None:
        schema = tools[0]["parameters"]
        assert schema["$defs"] is DEFS
        answer = ask(engine, seed, tokens, response_schema=schema)
        if answer.usage is None:
            return
        if answer.finish_reason == "length":
            seen["cut"] += 1
            return
        error = find_error(schema, json.loads(answer.content))
        assert error is None or checked_later(schema), (schema, answer.content, error)
        seen["whole" if error is None else "reported"] += 1

    check()
    print(engine.family.dialect.name, seen)
    assert seen["whole"] >= COUNT // 4
