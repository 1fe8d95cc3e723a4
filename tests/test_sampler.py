"""The sampler draws from the distribution that its settings describe."""

from __future__ import annotations

import pytest
import torch

from minicpm_core.sampler import Sampler
from minicpm_core.types import Sampling

LOGITS = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.1]))


def _draws(logits: torch.Tensor, count: int = 400, **values: float) -> list[int]:
    sampler = Sampler(Sampling(seed=7, **values), [])  # type: ignore[arg-type]
    return [draw_one(sampler, logits) for _ in range(count)]


def draw_one(sampler: Sampler, logits: torch.Tensor) -> int:
    token = sampler.draw(logits)
    sampler.accept(token)
    return token


def test_greedy_takes_the_largest() -> None:
    assert set(_draws(LOGITS, 5, temperature=0)) == {0}


def test_shares_follow_the_probabilities() -> None:
    draws = _draws(LOGITS, 4000, temperature=1.0)
    assert [round(draws.count(token) / 4000, 1) for token in range(4)] == [0.4, 0.3, 0.2, 0.1]


def test_temperature_sharpens_and_flattens() -> None:
    assert _draws(LOGITS, temperature=0.3).count(0) > _draws(LOGITS, temperature=3.0).count(0) + 100


@pytest.mark.parametrize(("top_p", "kept"), [(0.39, {0}), (0.41, {0, 1}), (0.71, {0, 1, 2}), (1.0, {0, 1, 2, 3})])
def test_top_p_keeps_the_fewest_that_hold_its_share(top_p: float, kept: set[int]) -> None:
    assert set(_draws(LOGITS, temperature=1.0, top_p=top_p)) == kept


@pytest.mark.parametrize(("top_k", "kept"), [(1, {0}), (2, {0, 1}), (0, {0, 1, 2, 3}), (99, {0, 1, 2, 3})])
def test_top_k_keeps_the_largest(top_k: int, kept: set[int]) -> None:
    assert set(_draws(LOGITS, temperature=1.0, top_k=top_k)) == kept


def test_top_p_is_taken_of_what_top_k_leaves() -> None:
    assert set(_draws(LOGITS, temperature=1.0, top_k=2, top_p=0.56)) == {0}  # 0.4 of 0.7 is 0.57


@pytest.mark.parametrize("size", [100, 5000])
def test_a_flat_distribution_is_cut_at_its_share_however_large_the_vocabulary(size: int) -> None:
    logits = torch.linspace(1e-3, 0, size)
    assert max(_draws(logits, 800, temperature=1.0, top_p=0.5)) in range(int(size * 0.48), int(size * 0.52))


def test_repetition_penalty_counts_the_prompt_and_what_was_drawn() -> None:
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=2.0), [2])
    assert [draw_one(sampler, torch.tensor([1.0, 1.5, 1.8, -1.0])) for _ in range(3)] == [1, 0, 2]
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=2.0), [0])
    assert sampler.draw(torch.tensor([-1.0, -1.5])) == 1  # a negative logit is made smaller
