"""The output head and tied embeddings in 8 bits: the products, the error, and what is stored and loaded."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("bitsandbytes")

import torch

from minicpm_core.int4 import head


def make_head(weight: torch.Tensor) -> head.Head8bit:
    made = head.Head8bit(weight.shape[1], weight.shape[0], weight.dtype)
    made.set_parts(quantize(weight))
    return made


def quantize(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = {"weight": torch.empty(weight.shape, dtype=torch.int8), "scales": torch.empty(len(weight))}
    head.quantize_rows(weight, weight.dtype, parts)
    return parts


def test_rows_are_quantised_to_their_largest() -> None:
    weight = torch.tensor([[127.0, -63.6, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0], [-2.0, 1.0, 0.5, 0.25]])
    parts = quantize(weight)
    assert parts["weight"].tolist()[:2] == [[127, -64, 0, 0], [0, 0, 0, 0]]
    assert parts["scales"][0] == 1.0
    error = (parts["weight"] * parts["scales"][:, None] - weight).abs()
    assert (error <= 0.505 * parts["scales"][:, None]).all()
    assert parts["scales"].bfloat16().float().equal(parts["scales"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    weight = torch.zeros(40, 64)
    weight[7, 9] = value
    with pytest.raises(ValueError, match="not finite"):
        quantize(weight.bfloat16())


@pytest.mark.parametrize("rows", [600, 603])
@pytest.mark.parametrize("columns", [64, 100])  # the kernel is not for 100
@pytest.mark.parametrize("tokens", [1, 5, head.FEW, head.FEW + 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_logits(rows: int, columns: int, tokens: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_CHUNK", 64 * 7)
    torch.manual_seed(0)
    weight, x = torch.randn(rows, columns).to(dtype), torch.randn(1, tokens, columns).to(dtype)
    made = make_head(weight)
    found, exact = made(x).double(), x.double() @ weight.double().T
    assert found.shape == (1, tokens, rows)
    meant = x.double() @ (made.weight.double() * made.scales.double()[:, None]).T
    assert (found - meant).norm() / meant.norm() < (1e-6 if dtype is torch.float32 else 4e-3)
    assert (found - exact).norm() / exact.norm() < 0.01


def test_gradients_reach_the_input() -> None:
    made, x = make_head(torch.randn(40, 64)), torch.randn(2, 64, requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad[0], made.dequantize().sum(0), rtol=1e-4, atol=1e-5)


def test_the_state_dict_is_one_matrix_that_loads_again() -> None:
    made = make_head(torch.randn(40, 64).bfloat16())
    state = made.state_dict()
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()} == {
        "weight": (torch.bfloat16, (40, 64))
    }
    other = make_head(torch.zeros(40, 64).bfloat16())
    other.load_state_dict(state)
    assert (other.dequantize().float() - made.dequantize().float()).norm() / made.dequantize().float().norm() < 0.005
    with pytest.raises(RuntimeError, match=r"weight has the shape \[2, 2\], and \[40, 64\] is needed"):
        other.load_state_dict({"weight": torch.zeros(2, 2)})


def test_tied_embeddings_and_head_have_the_same_weights() -> None:
    weight = torch.randn(40, 64)
    tied = head.TiedHead8bit(64, 40, torch.float32)
    embeddings = head.Embedding8bit(torch.nn.Embedding(40, 64), tied, torch.float32)
    embeddings.set_parts(quantize(weight))
    ids = torch.tensor([[3, 39, 3]])
    assert embeddings(ids).equal(embeddings.dequantize()[ids])
    assert (embeddings(ids) - weight[ids]).abs().max() <= 0.505 * embeddings.scales.max()
    assert tied.weight is embeddings.weight
    assert list(tied.state_dict()) == []
    assert list(embeddings.state_dict()) == ["weight"]
    assert list(embeddings.children()) == []


def test_it_stays_as_it_is() -> None:
    made = make_head(torch.randn(40, 64))
    kept = made.dequantize()
    assert made.to(torch.bfloat16).dequantize().equal(kept)
    assert made.weight.dtype is torch.int8
