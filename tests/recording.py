"""The engine's own loop with the token ids kept, for comparisons with what other code generates."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from minicpm_core import Chunk, Sampling
from minicpm_core.generation import generate_chunks
from minicpm_core.sampler import Sampler


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
