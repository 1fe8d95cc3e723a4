"""Guessing ahead changes the number of steps, never the answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from minicpm_core import Chunk, Engine, Sampling, load
from minicpm_core.answers import Answer
from minicpm_core.prefix import Prefixes
from minicpm_core.rag import build_messages
from minicpm_core.speculation import Lookup
from tests.recording import recorded_passes
from tests.test_prefix import TOOL, ask, assert_same, user
from tests.test_vision_engine import ask as ask_about
from tests.test_vision_engine import picture
from tests.toy_families import CONFIGS, write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

SAMPLINGS = {
    "greedy": Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=40),
    "penalty": Sampling(temperature=0, repetition_penalty=1.5, max_new_tokens=40),
    "seeded": Sampling(temperature=1.0, top_p=0.9, seed=5, max_new_tokens=40),
}
PASSAGES = (
    "The Falcon lamp weighs 450 grams and is made of brass.",
    "The battery of the Falcon lamp lasts 14 hours.",
    "The lease was signed by Maria Keller on 3 May 2021.",
)


class Oracle(Lookup):
    """Guesses what the answer without guesses was, each time wrong from another place on."""

    said: ClassVar[list[int]] = []
    prompt_tokens = 0
    judged: ClassVar[list[tuple[int, int]]] = []

    def draft(self, ids: Any, most: int) -> list[int]:
        done = len(ids) - self.prompt_tokens
        guess = self.said[done : done + min(5, most)]
        wrong = len(ids) % 7
        return guess[:wrong] + [(token + 1) % 300 for token in guess[wrong:]]

    def judge(self, drafted: int, right: int) -> None:
        self.judged.append((drafted, right))


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> type[Oracle]:
    """Answers are guessed by an oracle that errs."""
    Oracle.said, Oracle.judged = [], []
    monkeypatch.setattr("minicpm_core.generation.Lookup", Oracle)
    return Oracle


def ask_twice(engine: Engine, prompt: Any, oracle: type[Oracle], **options: Any) -> tuple[Chunk, Chunk]:
    """Return the answer without guesses, and the one with the oracle's."""
    said: list[int] = []
    read = Answer.read

    def recorded(answer: Answer, tokens: Any, logprobs: Any = ()) -> Iterator[Chunk]:
        said.extend(tokens)
        return read(answer, tokens, logprobs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answer, "read", recorded)
        patch.setattr(oracle, "draft", lambda *_: [])
        alone = ask(engine, prompt, cold=True, **options)
    assert alone.usage is not None
    oracle.said, oracle.prompt_tokens, oracle.judged = said, alone.usage.prompt_tokens, []
    return alone, ask(engine, prompt, cold=True, **options)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_guesses_leave_every_answer_as_it_was(tmp_path: Path, name: str, sampling: str, oracle: type[Oracle]) -> None:
    with load(write_family(tmp_path, name, initializer_range=0.5, eos_token_id=1)) as engine:
        prompt = [user("What is the name of the city?")]
        alone, guessed = ask_twice(engine, prompt, oracle, sampling=SAMPLINGS[sampling])
        assert_same(guessed, alone)
        assert guessed.usage is not None
        if guessed.usage.completion_tokens > 20:
            assert len({right for _, right in oracle.judged}) > 2  # wrong from the first, in the middle, and all right
        assert sum(right for _, right in oracle.judged) > guessed.usage.completion_tokens // 4


@pytest.mark.parametrize(
    "options",
    [
        {"tools": [TOOL], "tool_choice": "any", "logprobs": None},
        {"tools": [TOOL], "logprobs": None},
        {"response_schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
        {"response_schema": TOOL["parameters"], "logprobs": None, "enable_thinking": True},
        {"grammar": 'start: "the quick brown fox " /[a-z ]{30,60}/', "logprobs": None},
        {"stop": ["a", "e"]},
        {"logprobs": 5},
    ],
    ids=["call", "tools", "schema", "thinking", "grammar", "stop", "logprobs"],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_grammars_stops_and_probabilities_hold_with_guesses(
    tmp_path: Path, options: dict[str, Any], temperature: float, oracle: type[Oracle]
) -> None:
    sampling = Sampling(temperature=temperature, seed=1, max_new_tokens=60)
    folder = write_family(tmp_path, "minicpm5", initializer_range=0.5, max_position_embeddings=1024)
    with load(folder) as engine:
        alone, guessed = ask_twice(engine, [user("Find number 7.")], oracle, sampling=sampling, **options)
        assert_same(guessed, alone)
        assert sum(right for _, right in oracle.judged) > 0 or options.get("stop")


def test_an_answer_that_copies_takes_half_of_the_steps() -> None:
    sampling = Sampling(temperature=0, max_new_tokens=60)
    with load("demo") as engine:
        for question, right in (("Who signed the lease?", 3), ("What does the Falcon lamp weigh?", 1)):
            prompt = build_messages(question, PASSAGES)
            with recorded_passes(engine) as alone:
                expected = ask(engine, prompt, cold=True, sampling=sampling, logprobs=None)
            with recorded_passes(engine, guesses=True) as guessed:
                assert ask(engine, prompt, cold=True, sampling=sampling, logprobs=None) == expected
            assert expected.content == f"[{right}] {PASSAGES[right - 1]}"
            assert expected.usage is not None
            assert len(alone) == expected.usage.completion_tokens
            assert len(guessed) <= len(alone) / 2


def test_a_text_that_repeats_itself_is_guessed_too(tmp_path: Path) -> None:
    prompts = [[user("What is the lamp?")], [user("The lamp has a warranty of two years. " * 3)]]
    with load(write_family(tmp_path, "minicpm", max_position_embeddings=512)) as engine:
        for prompt in prompts:
            for name, sampling in SAMPLINGS.items():
                with recorded_passes(engine):
                    alone = ask(engine, prompt, cold=True, sampling=sampling)
                with recorded_passes(engine, guesses=True) as passes:
                    assert_same(ask(engine, prompt, cold=True, sampling=sampling), alone)
                if name == "greedy":  # this model says one token for ever
                    assert len(passes) < 12


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_an_answer_never_has_more_tokens_than_asked_for(tmp_path: Path, most: int, oracle: type[Oracle]) -> None:
    sampling = Sampling(temperature=0, max_new_tokens=most)
    with load(write_family(tmp_path, "minicpm")) as engine:
        alone, guessed = ask_twice(engine, [user("Hello")], oracle, sampling=sampling)
        assert_same(guessed, alone)
        assert guessed.usage is not None
        assert (guessed.usage.completion_tokens, guessed.finish_reason) == (most, "length")


def test_nothing_is_guessed_beyond_the_end(tmp_path: Path) -> None:
    with load(write_family(tmp_path, "minicpm")) as engine:  # says one token for ever
        for most in range(8, 24):
            sampling = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=most)
            with recorded_passes(engine, guesses=True) as passes:
                ask(engine, [user("What is the lamp?")], cold=True, sampling=sampling)
            assert len(passes) < most
            assert sum(len(part) for part in passes[1:]) == most - 1  # the last one is not read


def test_a_stream_that_is_left_inside_a_guess_leaves_a_sound_prefix(tmp_path: Path, oracle: type[Oracle]) -> None:
    prompt, sampling = [user("What is the name of the city?")], SAMPLINGS["greedy"]
    with load(write_family(tmp_path, "minicpm5", initializer_range=0.5)) as engine:
        alone, _ = ask_twice(engine, prompt, oracle, sampling=sampling)
        for pieces in range(1, 8):
            engine._prefixes = Prefixes(1000)
            stream = engine.stream(prompt, sampling=sampling)
            for _ in range(pieces):
                next(stream)
            stream.close()  # type: ignore[attr-defined]
            assert_same(ask(engine, prompt, sampling=sampling), alone)
            (kept, *_) = engine._prefixes._kept
            assert len(kept.ids) == kept._cache.get_seq_length()


def test_pictures_may_be_spoken_of_in_guesses(tmp_path: Path, oracle: type[Oracle]) -> None:
    prompt = ask_about(picture(), "What is it?")
    with load(write_minicpmv(tmp_path / "2.6", "2.6"), dtype="float32") as engine:
        alone, guessed = ask_twice(engine, prompt, oracle, sampling=SAMPLINGS["greedy"])
        assert_same(guessed, alone)
        assert sum(right for _, right in oracle.judged) > 3
    with load(write_native(tmp_path / "4.7", "minicpmv4_7"), dtype="float32") as engine:
        alone, guessed = ask_twice(engine, prompt, oracle, sampling=SAMPLINGS["greedy"])
        assert_same(guessed, alone)
        assert {drafted for drafted, _ in oracle.judged} == {0}  # its states cannot be taken back


TEXT = list(range(50, 80))


def test_a_draft_is_what_followed_the_same_three_tokens_last() -> None:
    lookup = Lookup()
    assert lookup.draft([*TEXT, 9, *TEXT[4:7]], 20) == TEXT[7:11]
    lookup = Lookup()
    assert lookup.draft([*TEXT, 9, *TEXT[5:7]], 20) == []
    assert lookup.draft([*TEXT, 9, *TEXT[5:7], 7, 8, 6, *TEXT[4:7]], 20) == TEXT[7:11]
    both = [1, 2, 3, 4, 5, 1, 2, 3, 6, 7, 8, 9, 1, 2, 3]
    assert Lookup().draft(both, 20) == [6, 7, 8, 9]
    assert Lookup().draft(both, 2) == [6, 7]
    assert Lookup().draft(both, 0) == []
    assert Lookup().draft(both, -1) == []
    assert Lookup().draft([1, 2], 20) == []


def test_drafts_grow_while_they_are_right() -> None:
    lookup, text = Lookup(), list(range(100))
    said, lengths = text[:3], []
    while len(said) < 60:
        draft = lookup.draft(text + said, 100)
        assert draft == text[len(said) : len(said) + len(draft)]
        lengths.append(len(draft))
        lookup.judge(len(draft), len(draft))
        said += text[len(said) : len(said) + len(draft) + 1]
    assert lengths == [4, 8, 16, 16, 16]
    lookup.judge(16, 9)
    assert len(lookup.draft(text + said, 100)) == 9


def test_drafts_cease_where_they_are_wrong() -> None:
    lookup, text, drafted = Lookup(), [7] * 10, []
    for step in range(200):
        if draft := lookup.draft(text, 20):
            drafted.append(step)
        lookup.judge(len(draft), 0)
        text.append(7)
    assert drafted == [0, 3, 8, 17, 34, 67, 132]
    lookup.draft(text, 20)
    for _ in range(300):
        lookup.draft(text, 20)
    lookup.judge(4, 2)  # half of it right: that pays
    assert [len(lookup.draft(text, 20)) for _ in range(3)] == [4, 4, 4]  # beyond the end of a text that repeats
    lookup.judge(4, 1)
    assert [len(lookup.draft(text, 20)) for _ in range(4)] == [0, 0, 4, 4]
