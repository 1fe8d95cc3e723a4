"""The resampler's attention copies no weights: what it takes grows with the patches only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from minicpm_core.vision.resampler import Resampler, ResamplerSizes


def test_linear_layers_get_contiguous_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    resampler = Resampler(ResamplerSizes(4, 256, 64)).requires_grad_(False)
    for parameter in resampler.parameters():
        nn.init.normal_(parameter)
    seen: list[tuple[int, ...]] = []
    linear = nn.functional.linear

    def checked(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        assert x.is_contiguous()  # torch copies the weights for each row of others with three dimensions
        seen.append(tuple(x.shape))
        return linear(x, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", checked)
    with torch.inference_mode():
        tokens = resampler([torch.randn(6, 64), torch.randn(4, 64)], [(2, 3), (2, 2)])
    assert tokens.shape == (2, 4, 256)
    assert seen == [(6, 64), (4, 64), (4, 2, 256), (6, 2, 256), (6, 2, 256), (8, 256)]
