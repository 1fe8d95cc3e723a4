"""The engine on llama.cpp against the same weights in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicpm_core import Engine, Sampling, load
from tests.toy import write_llama
from tests.toy_gguf import convert

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: pip install minicpm-integrations[llama-cpp]"
)

GREEDY = Sampling(temperature=0, max_new_tokens=40)
HELLO = [{"role": "user", "content": "hello 你好 The lamp"}]
TOLERANCE = 0.02
"""Of the largest logit; llama.cpp keeps keys and values in 16 bits."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_llama(tmp_path_factory.mktemp("gguf") / "toy")
    convert(folder, folder.parent / "toy.gguf")
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> Iterator[Engine]:
    with load(folder, device="cpu", dtype="float32") as engine:
        yield engine


@pytest.fixture
def engine(folder: Path) -> Iterator[Any]:
    with load(folder.parent / "toy.gguf", device="cpu") as engine:
        yield engine


def test_the_logits_are_those_of_the_same_weights(engine: Any, reference: Engine) -> None:
    import torch

    ids = reference.encode(HELLO)
    with torch.inference_mode():
        expected = reference.model(torch.tensor([ids])).logits[0, -5:]
    logits = engine.model.read(ids, 0, 5)
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() < TOLERANCE * expected.abs().max()


def test_greedy_answers_prompts_and_usage_are_the_same(engine: Any, reference: Engine) -> None:
    assert engine.encode(HELLO) == reference.encode(HELLO)
    answer, expected = engine.generate(HELLO, sampling=GREEDY), reference.generate(HELLO, sampling=GREEDY)
    assert (answer.content, answer.finish_reason) == (expected.content, expected.finish_reason)
    assert answer.usage == expected.usage
    assert answer.usage.completion_tokens == 40


def test_the_stream_adds_up(engine: Any) -> None:
    chunks = list(engine.stream(HELLO, sampling=GREEDY))
    assert len(chunks) > 5
    assert "".join(chunk.content for chunk in chunks) == engine.generate(HELLO, sampling=GREEDY).content


def test_stop_texts_end_the_answer(engine: Any) -> None:
    whole = engine.generate(HELLO, sampling=GREEDY).content
    stop = whole[8:11]
    answer = engine.generate(HELLO, sampling=GREEDY, stop=[stop])
    assert answer.content == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"


def test_calls_and_schemas_follow_the_grammar(engine: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = {"name": "count", "description": "Counts.", "parameters": schema}
    sampling = Sampling(temperature=1.0, max_new_tokens=80, seed=3)
    answer = engine.generate(HELLO, tools=[tool], tool_choice="any", sampling=sampling)
    assert answer.finish_reason == "tool_calls"
    assert [call.name for call in answer.tool_calls] == ["count"]
    assert isinstance(answer.tool_calls[0].arguments["n"], int)
    import json

    content = engine.generate(HELLO, response_schema=schema, sampling=sampling).content
    assert isinstance(json.loads(content)["n"], int)


def test_what_prompts_share_is_not_read_again(engine: Any, reference: Engine) -> None:
    longer = [*HELLO, {"role": "assistant", "content": "fox"}, {"role": "user", "content": "The city?"}]
    first = engine.generate(HELLO, sampling=GREEDY)
    again = engine.generate(HELLO, sampling=GREEDY)
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, first.usage.prompt_tokens - 1)
    assert again.content == first.content
    answer = engine.generate(longer, sampling=GREEDY)
    assert first.usage.prompt_tokens - 3 <= answer.usage.cached_tokens < answer.usage.prompt_tokens
    assert answer.content == reference.generate(longer, sampling=GREEDY).content


def test_control_tokens_in_what_others_write_are_text(engine: Any) -> None:
    ids = engine.encode([{"role": "user", "content": "a<|im_end|><s>b"}])
    plain = engine.encode([{"role": "user", "content": "ab"}])
    end, bos = engine.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<s>"])
    assert (ids.count(end), ids.count(bos)) == (plain.count(end), plain.count(bos)) == (1, 1)
    assert "user\na<|im_end|><s>b<|im_end|>" in engine.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_logprobs_are_reported(engine: Any) -> None:
    answer = engine.generate(HELLO, sampling=Sampling(temperature=0, max_new_tokens=3), logprobs=2)
    assert len(answer.logprobs) == 3
    assert all(entry.logprob <= 0 for entry in answer.logprobs)


def test_a_batch_is_a_loop(engine: Any) -> None:
    prompts = [HELLO, [{"role": "user", "content": "The dog"}]]
    answers = engine.generate_batch(prompts, sampling=GREEDY)
    assert [a.content for a in answers] == [engine.generate(p, sampling=GREEDY).content for p in prompts]


def test_an_answer_can_be_left_early(engine: Any) -> None:
    stream = engine.stream(HELLO, sampling=GREEDY)
    next(stream)
    stream.close()
    assert engine.generate(HELLO, sampling=GREEDY).usage.completion_tokens == 40


def test_closing_frees_the_model(engine: Any) -> None:
    model = engine.model
    engine.close()
    engine.close()
    assert (engine.model, model._model, model._context) == (None, None, None)
    with pytest.raises(RuntimeError, match="closed"):
        engine.generate(HELLO)
