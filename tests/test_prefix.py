"""What a prompt shares with those before it is not computed again, and nobody can tell from the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, Qwen2Config

from minicpm_core import Chunk, Engine, Sampling, load
from minicpm_core.prefix import Context, Prefixes, can_rewind, shared
from minicpm_core.rag import build_messages
from tests.recording import recorded_passes
from tests.test_adapters import write_adapter
from tests.test_vision_engine import ask as ask_about
from tests.test_vision_engine import picture
from tests.toy import CORPUS
from tests.toy_families import CONFIGS, longrope, write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

GREEDY = Sampling(temperature=0, repetition_penalty=1.3, max_new_tokens=12)
SEEDED = Sampling(temperature=1.0, seed=5, max_new_tokens=12)
LONG = longrope(8)["long_factor"]
PASSAGES = ["The lamp has a warranty of two years.", "It costs 35 EUR.", "保修期为两年。"]
TOOL = {"name": "find", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    return write_family(folder, "minicpm5", initializer_range=0.5, max_position_embeddings=1024)


@pytest.fixture
def engine(folder: Path) -> Engine:
    return load(folder)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def ask(engine: Engine, prompt: Any, *, cold: bool = False, **options: Any) -> Chunk:
    """Return the answer; `cold` computes the whole prompt and leaves what the engine remembers as it was."""
    remembered = engine._prefixes
    engine._prefixes = Prefixes(0) if cold else remembered
    try:
        return engine.generate(prompt, **{"sampling": GREEDY, "logprobs": 0} | options)
    finally:
        engine._prefixes = remembered


def cached(answer: Chunk) -> int:
    assert answer.usage is not None
    return answer.usage.cached_tokens


def assert_same(answer: Chunk, other: Chunk) -> None:
    """Compare everything but the last digits of probabilities."""
    values = [[entry.logprob for entry in chunk.logprobs] for chunk in (answer, other)]
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    assert (answer.content, answer.reasoning, answer.finish_reason) == (
        other.content,
        other.reasoning,
        other.finish_reason,
    )
    assert [(call.name, call.text) for call in answer.tool_calls] == [
        (call.name, call.text) for call in other.tool_calls
    ]
    assert answer.usage == other.usage


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_alternating_conversations_get_the_answers_of_cold_prompts(
    tmp_path: Path, name: str, sampling: Sampling
) -> None:
    folder = write_family(tmp_path, name, initializer_range=0.5)
    with load(folder) as engine, recorded_passes(engine) as passes:
        engine._prefixes = Prefixes(2000)  # the toy's window is too small for several conversations
        first, second = [user("What is the name of the city?")], [user("What is the lamp?")]
        seen: list[tuple[list[int], list[int]]] = []  # prompts, and all that the model has read of the request
        reused = 0
        for turn in range(3):
            for talk in (first, second, first):
                ids = engine.encode(talk)
                passes.clear()
                answer = ask(engine, talk, sampling=sampling)
                expected = max((common(ids, *earlier) for earlier in seen), default=0)
                assert cached(answer) == (expected if expected >= 8 else 0)
                reused += cached(answer)
                seen.append((ids, [*ids[: cached(answer)], *chain(*passes)]))
                assert seen[-1][1][: len(ids)] == ids
                assert_same(answer, ask(engine, talk, cold=True, sampling=sampling))
            for talk in (first, second):
                talk += [{"role": "assistant", "content": f"turn {turn}"}, user(CORPUS[turn][:40])]
        assert reused > 250


def common(ids: Sequence[int], prompt: Sequence[int], read: Sequence[int] = ()) -> int:
    """Return the tokens that can be taken over; the last one's logits are known where the prompts are the same."""
    read = read or prompt
    same = next((n for n, (a, b) in enumerate(zip(ids, read, strict=False)) if a != b), min(len(ids), len(read)))
    return same if list(ids) == list(prompt) else min(same, len(ids) - 1)


def test_a_follow_up_question_on_the_same_passages_reads_the_question_only(engine: Engine) -> None:
    questions = ["What does the lamp cost?", "How long is the warranty?"]
    prompts = [build_messages(question, PASSAGES) for question in questions]
    ids = [engine.encode(prompt) for prompt in prompts]
    expected = common(ids[1], ids[0])
    passages = engine.render(prompts[0]).split(questions[0])[0]
    assert expected >= len(engine.encode(passages)) - 1  # all of the passages; a token may join the question
    for prompt, known, whole in ((0, 0, ids[0]), (1, expected, ids[1]), (1, len(ids[1]), ids[1])):
        with recorded_passes(engine) as passes:
            assert cached(ask(engine, prompts[prompt])) == known
        assert passes[0] == whole[known:] or (known == len(whole) and len(passes[0]) == 1)
        assert [len(part) for part in passes[1:]] == [1] * len(passes[1:])


def test_a_conversation_goes_on_where_it_ended(engine: Engine) -> None:
    talk = [user("What is the lamp?")]
    said = "the quick brown fox jumps over the lazy dog"
    with recorded_passes(engine) as passes:
        assert ask(engine, talk, grammar=f'start: "{said}" /x{{1,3}}/').content.startswith(said)
    read = list(chain(*passes))
    talk += [{"role": "assistant", "content": said}, user("And?")]
    expected = common(engine.encode(talk), read)
    assert expected > len(engine.encode(talk[:1])) + 5  # most of the answer too
    assert cached(ask(engine, talk)) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"tools": [TOOL], "tool_choice": "any", "logprobs": None},
        {"response_schema": TOOL["parameters"]},
        {"stop": ["a", "e", "保"]},
        {"logprobs": 5},
    ],
    ids=["tools", "schema", "stop", "logprobs"],
)
def test_every_kind_of_answer_is_that_of_a_cold_prompt(engine: Engine, options: dict[str, Any]) -> None:
    sampling = Sampling(temperature=1.0, seed=2, max_new_tokens=60)
    for text in ("Find number 7.", "Find number 12 in the city.", "Find number 7."):
        prompt = [{"role": "system", "content": CORPUS[0][:60]}, user(text)]
        warm = ask(engine, prompt, sampling=sampling, **options)
        assert_same(warm, ask(engine, prompt, cold=True, sampling=sampling, **options))
    assert warm.usage is not None
    assert cached(warm) == warm.usage.prompt_tokens


def test_all_caches_together_stay_within_the_planned_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(folder, context_window=150) as engine:
        most, peaks = engine.memory_report()["kv_cache"], []
        caches: list[Any] = []
        read = Context.read

        def watched(context: Context, *args: Any, **kwargs: Any) -> Any:
            logits = read(context, *args, **kwargs)
            alive = [context, *(kept for kept in engine._prefixes._kept if kept is not context)]
            tensors = [t for one in alive for layer in one._cache.layers for t in (layer.keys, layer.values)]
            peaks.append(sum(size for _, size in {(t.data_ptr(), t.untyped_storage().nbytes()) for t in tensors}))
            caches.append(len(alive))
            return logits

        monkeypatch.setattr(Context, "read", watched)
        for n in range(6):
            for talk in (f"{n} What is the name of the city?", "Who is the fox? " * 3, f"What is the lamp? {n}"):
                ask(engine, [user(talk)], logprobs=None)
        assert max(peaks) <= most
        assert max(peaks) > 0.8 * most  # the bound was reached
        assert max(caches) > 1


def test_the_conversation_that_rested_longest_goes_first() -> None:
    model = Reader()
    prefixes = Prefixes(100)
    for start in (100, 200, 300):
        with prefixes.open(model, range(start, start + 30)) as context:
            context.read(list(range(start, start + 30)))
    with prefixes.open(model, range(100, 133)) as context:  # goes on
        context.read(list(range(130, 133)))
    assert [kept.ids[0] for kept in prefixes._kept] == [200, 300, 100]
    with prefixes.open(model, range(400, 425)) as context:
        context.read(list(range(400, 425)))
    assert [kept.ids[0] for kept in prefixes._kept] == [300, 100, 400]
    for n in range(9):
        with prefixes.open(model, [n] * 9) as context:
            context.read([n] * 9)
    assert [kept.ids[0] for kept in prefixes._kept] == list(range(1, 9))


def test_what_another_begins_with_is_kept_once() -> None:
    model, prefixes = Reader(), Prefixes(1000)
    for length in (20, 50, 30, 50):
        with prefixes.open(model, range(length)) as context:
            context.read(list(range(len(context.ids), length)))
        assert [len(kept.ids) for kept in prefixes._kept] == [max(length, 50) if length != 20 else 20]


def test_a_prompt_that_was_read_again_replaces_the_first() -> None:
    model, prefixes = Reader(), Prefixes(1000)
    for more in ([], list(range(20, 40))):
        with prefixes.open(model, range(20)) as context:
            context.read([*range(len(context.ids), 20), *more])
    assert [len(kept.ids) for kept in prefixes._kept] == [40]


def test_a_few_tokens_are_not_worth_it() -> None:
    model, prefixes = Reader(), Prefixes(1000)
    with prefixes.open(model, range(30)) as context:
        context.read(list(range(30)))
    for same in (7, 8):
        with prefixes.open(model, [*range(same), 99, 98]) as context:
            assert len(context.ids) == (8 if same == 8 else 0)


def test_a_generator_that_is_closed_keeps_what_it_read() -> None:
    prefixes = Prefixes(1000)

    def generate() -> Iterator[None]:
        with prefixes.open(Reader(), range(30)) as context:
            context.read(list(range(30)))
            yield

    stream = generate()
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert [len(kept.ids) for kept in prefixes._kept] == [30]


class Reader:
    """A model of one layer that only fills its cache."""

    device = "cpu"
    config = LlamaConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=1)

    def __call__(self, *, input_ids: torch.Tensor, past_key_values: Any, **_: Any) -> Any:
        states = input_ids[:, None, :, None].float()
        past_key_values.update(states, states, 0)
        return type("Out", (), {"logits": torch.zeros(1, 1, 4)})


def test_a_cancelled_answer_is_remembered_as_far_as_it_came(engine: Engine) -> None:
    prompt = build_messages("What does the lamp cost?", PASSAGES)
    stream = engine.stream(prompt, sampling=Sampling(temperature=0, max_new_tokens=100))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    answer = ask(engine, prompt)
    assert cached(answer) == len(engine.encode(prompt))
    assert_same(answer, ask(engine, prompt, cold=True))

    async def leave() -> None:
        chunks = engine.astream(prompt, sampling=Sampling(temperature=0, max_new_tokens=100))
        async for _ in chunks:
            break
        await chunks.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    assert_same(ask(engine, prompt), ask(engine, prompt, cold=True))


def test_nothing_is_remembered_of_a_pass_that_failed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = build_messages("What does the lamp cost?", PASSAGES)
    expected = ask(engine, prompt, cold=True)
    last, passes = engine.model.model.layers[-1], iter([engine.model.model.layers[-1].forward, fail])
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_memory", replace(engine._memory, prefill_chunk=40))
        patch.setattr(last, "forward", lambda *args, **kwargs: next(passes)(*args, **kwargs))
        with pytest.raises(RuntimeError, match="out of order"):
            ask(engine, prompt)
    answer = ask(engine, prompt)
    assert cached(answer) == 0
    assert_same(answer, expected)


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("the model is out of order")


def test_another_adapter_remembers_nothing(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = write_family(tmp_path / "base", "minicpm")
    adapters = {name: write_adapter(tmp_path / name, folder, "minicpm", seed=n) for n, name in enumerate("ab")}
    prompt = build_messages("What does the lamp cost?", PASSAGES)
    with load(folder, adapter=adapters) as engine:
        for name in ("a", "b", None, "a"):
            engine.set_adapter(name)
            answer = ask(engine, prompt)
            assert cached(answer) == 0
            assert_same(answer, ask(engine, prompt, cold=True))


def test_a_batch_and_closing_free_what_is_remembered(engine: Engine) -> None:
    prompts = [[user(text)] for text in ("What is the lamp?", "Who is the lazy dog?")]
    ask(engine, prompts[0])
    assert len(engine._prefixes._kept) == 1
    engine.generate_batch(prompts, sampling=GREEDY)
    assert engine._prefixes._kept == []
    ask(engine, prompts[0])
    engine.close()
    assert engine._prefixes._kept == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(num_hidden_layers=1), True),
        (LlamaConfig(num_hidden_layers=1, rope_parameters={"rope_type": "dynamic", "factor": 2.0}), False),
        (LlamaConfig(num_hidden_layers=1, rope_parameters=longrope(8, original=64)), False),
        (LlamaConfig(num_hidden_layers=1, rope_parameters=longrope(8, original=2048)), True),
        (
            LlamaConfig(
                num_hidden_layers=1, rope_parameters=longrope(8) | {"short_factor": longrope(8)["long_factor"]}
            ),
            True,
        ),
        (Qwen2Config(num_hidden_layers=1, use_sliding_window=True, sliding_window=64, max_window_layers=0), False),
        (Qwen2Config(num_hidden_layers=1), True),
    ],
)
def test_only_caches_that_later_tokens_do_not_change_are_shared(config: Any, expected: bool) -> None:
    assert can_rewind(config, DynamicCache(config=config)) is expected


@pytest.mark.parametrize("model_type", ["minicpmv4_6", "minicpmv4_7"])
def test_states_of_linear_attention_are_shared_behind_pictures_only(tmp_path: Path, model_type: str) -> None:
    with load(write_native(tmp_path, model_type), dtype="float32") as engine:
        text = [user("What is the lamp? " * 3)]
        assert [cached(ask(engine, text)) for _ in range(2)] == [0, 0]
        first, second, other = (
            ask_about(picture(seed=seed), words) for seed, words in ((0, "What?"), (0, "Where is it?"), (1, "What?"))
        )
        end = engine.prepare(first).pictures.end
        both = [*second, {"role": "assistant", "content": "Here."}, *other]
        later = engine.prepare(both).pictures.end
        for prompt, expected in ((first, 0), (second, end), (first, end), (both, end), (both, later), (other, 0)):
            answer = ask(engine, prompt)
            assert cached(answer) == expected
            assert_same(answer, ask(engine, prompt, cold=True))
            ask(engine, prompt)


@pytest.mark.parametrize("version", ["2.0", "2.6"])
def test_a_second_question_on_the_same_picture_does_not_look_again(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(write_minicpmv(tmp_path, version), dtype="float32") as engine:
        looks: list[int] = []
        encode = engine.model.encode
        monkeypatch.setattr(engine.model, "encode", lambda *args: looks.append(1) or encode(*args))
        prompts = [ask_about(picture(), text) for text in ("What is it?", "Where does it stand?")]
        first, second = (engine.prepare(prompt) for prompt in prompts)
        ask(engine, prompts[0])
        answer = ask(engine, prompts[1])
        assert cached(answer) == common(second.prompt_ids, first.prompt_ids) > first.pictures.end
        assert len(looks) == 1
        assert_same(answer, ask(engine, prompts[1], cold=True))
        other = ask(engine, ask_about(picture(seed=1), "What is it?"))
        assert cached(other) <= first.pictures.spans[0][0]
        assert_same(other, ask(engine, ask_about(picture(seed=1), "What is it?"), cold=True))
        added = ask_about(picture(), "And this?", picture(seed=1))
        assert_same(ask(engine, added), ask(engine, added, cold=True))


def test_shared_beginnings() -> None:
    assert [shared([], [1]), shared([1, 2], [1, 3]), shared([1, 2], [1, 2, 3]), shared([2], [1])] == [0, 1, 2, 0]
