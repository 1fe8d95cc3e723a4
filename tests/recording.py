"""The engine's own loop with the token ids kept, for comparisons with what other code generates."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from minicpm_core import Chunk, Engine, Sampling
from minicpm_core.generation import generate_chunks
from minicpm_core.sampler import Sampler
from minicpm_core.speculation import Lookup


class _Recorder:
    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int]) -> None:
        self.ids: list[int] = []
        self.wanted = sampling.max_new_tokens or 0
        self.cached_tokens = 0
        self.sampler = Sampler(sampling, list(prompt_ids))

    @property
    def ended(self) -> bool:
        return len(self.ids) >= self.wanted

    @property
    def left(self) -> int:
        return self.wanted - len(self.ids)

    def begin(self) -> list[int]:
        return []

    def choose(self, logits: Any) -> tuple[list[int], tuple[()]]:
        token = self.sampler.draw(logits)
        self.sampler.accept(token)
        return [token], ()

    def read(self, tokens: Sequence[int], logprobs: tuple[()] = ()) -> Iterator[Chunk]:
        self.ids += tokens
        return iter(())

    def last(self) -> Chunk:
        return Chunk(finish_reason="length")


def generate_ids(
    model: Any, prompt_ids: Sequence[int], sampling: Sampling, *, pictures: Any = None, cancelled: Any = None
) -> list[int]:
    """Return the ids that the engine's loop draws until max_new_tokens; end tokens do not end it."""
    recorder: Any = _Recorder(sampling, prompt_ids)
    list(generate_chunks(model, list(prompt_ids), pictures, recorder, cancelled or threading.Event()))
    return list(recorder.ids)


@contextmanager
def recorded_passes(engine: Engine, *, guesses: bool = False) -> Iterator[list[list[int]]]:
    """Give a list that gets the token ids of each pass of the model (0 for what pictures wrote); see `Lookup`."""
    passes: list[list[int]] = []
    forward = engine.model.forward

    def recorded(**inputs: Any) -> Any:
        ids = inputs["input_ids"][0].tolist() if "input_ids" in inputs else [0] * inputs["inputs_embeds"].shape[1]
        passes.append(ids)
        return forward(**inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.model, "forward", recorded)
        if not guesses:
            patch.setattr(Lookup, "draft", lambda *_: [])
        yield passes
