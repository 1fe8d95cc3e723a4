"""The 4-bit layers of the CPU: every bit as bitsandbytes makes it, and the same products."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("bitsandbytes")

import torch
from bitsandbytes import functional

from minicpm_core.int4 import kernel, layout, linear, nf4

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
needs_kernel = pytest.mark.skipif(not kernel.has_kernel(), reason="bitsandbytes has a kernel for AVX512-BF16 only")


def random_weight(dtype: Any, rows: int = 96, columns: int = 128) -> torch.Tensor:
    torch.manual_seed(0)
    weight = torch.randn(rows, columns) * 0.05
    weight[3], weight[5, :64], weight[6, :64] = 0, 1e-30, 3e38 if dtype is not torch.float16 else 6e4
    middle = (nf4.code()[:-1] + nf4.code()[1:]) / 2  # as hard as it gets: on, and next to, each bound between two codes
    weight[8, :15], weight[8, 15], weight[8, 16:64] = middle, 1.0, 0.01
    weight[9, :15], weight[9, 15:30], weight[9, 30] = middle.nextafter(torch.ones(15)), middle - 2e-7, -1.0
    return weight.to(dtype)


def stock(weight: torch.Tensor) -> tuple[Any, Any]:
    return functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)


def make_layer(weight: torch.Tensor, dtype: Any, *, bias: bool = False) -> linear.Linear4bit:
    codes, absmax = nf4.quantize_codes(weight, weight.dtype)
    layer = linear.Linear4bit(weight.shape[1], weight.shape[0], bias, dtype)
    if bias:
        layer.bias = torch.nn.Parameter(torch.arange(float(weight.shape[0])), requires_grad=False)
    layer.set_parts(linear.pack(codes, nf4.quantize_scales(absmax)))
    return layer.eval()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_are_quantised_as_bitsandbytes_does(dtype: Any) -> None:
    weight = random_weight(dtype)
    packed, state = stock(weight)
    codes, absmax = nf4.quantize_codes(weight, dtype)
    scales = nf4.quantize_scales(absmax)
    assert torch.equal(layout.in_rows(codes).view(-1, 1), packed)
    assert torch.equal(scales.absmax, state.absmax)
    assert torch.equal(scales.nested_absmax, state.state2.absmax)
    assert torch.equal(scales.offset, state.offset)


def test_weights_are_rounded_first_as_transformers_does() -> None:
    weight = random_weight(torch.float32)
    codes, _ = nf4.quantize_codes(weight, torch.bfloat16)
    assert torch.equal(layout.in_rows(codes).view(-1, 1), stock(weight.bfloat16())[0])


def test_every_chunk_is_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nf4, "CHUNK", 64 * 5)
    weight = random_weight(torch.bfloat16)
    assert torch.equal(layout.in_rows(nf4.quantize_codes(weight, weight.dtype)[0]).view(-1, 1), stock(weight)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_is_refused(value: float, dtype: Any) -> None:
    weight = torch.zeros(32, 64, dtype=dtype)
    weight[7, 9] = value
    with pytest.raises(ValueError, match="not finite"):
        nf4.quantize_codes(weight, dtype)


def test_the_kernels_order_is_bitsandbytes() -> None:
    packed, state = stock(random_weight(torch.bfloat16))
    codes = torch.stack([packed >> 4, packed & 15], dim=-1).view(96, 128)
    theirs, their_state = functional._convert_weight_packed_for_cpu(packed, copy.deepcopy(state))
    assert torch.equal(layout.for_kernel(codes), theirs)
    assert torch.equal(layout.rows_of_kernel(theirs), packed.view(96, 64))
    scales = nf4.Scales(state.absmax, state.state2.absmax, state.offset)
    assert torch.equal(linear.for_kernel(scales, 96), their_state.absmax)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dequantised_weights_are_bitsandbytes(dtype: Any) -> None:
    weight = random_weight(dtype)
    packed, state = stock(weight)
    layer = make_layer(weight, dtype)
    assert torch.equal(layer.dequantize(), functional.dequantize_4bit(packed, state))
    parts = layer.state_dict()
    assert torch.equal(parts.pop("weight"), packed)
    read = functional.QuantState.from_dict(
        {k.removeprefix("weight."): v for k, v in parts.items()}, torch.device("cpu")
    )
    assert read == state
    assert torch.equal(functional.dequantize_4bit(packed, read), functional.dequantize_4bit(packed, state))


@needs_kernel
def test_few_tokens_give_the_products_of_stock_bitsandbytes() -> None:
    weight = random_weight(torch.bfloat16).clamp(-1, 1)
    packed, state = functional._convert_weight_packed_for_cpu(*stock(weight))
    x = torch.randn(linear.FEW, 128).bfloat16()
    assert torch.equal(make_layer(weight, torch.bfloat16)(x), functional.gemv_4bit(x, packed, state=state))


@pytest.mark.parametrize("with_kernel", [True, False])
@pytest.mark.parametrize("tokens", [1, 7, linear.FEW, linear.FEW + 1, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_products(tokens: int, dtype: Any, with_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_kernel:
        monkeypatch.setattr(linear, "has_kernel", lambda: False)
    weight = random_weight(dtype).clamp(-1, 1)
    layer = make_layer(weight, dtype, bias=True)
    assert (layer.kernel_scales is not None) == (with_kernel and kernel.has_kernel())
    monkeypatch.setattr(linear, "WORKSPACE", 32 * 128 * 4)  # so that the weights come in several parts
    monkeypatch.setattr(linear, "_UNPACKED", 32)
    x = torch.randn(1, tokens, 128, dtype=dtype)
    wanted = x.double() @ functional.dequantize_4bit(*stock(weight)).double().T + torch.arange(96.0)
    found = layer(x)
    assert found.dtype is dtype
    assert found.shape == (1, tokens, 96)
    exact = dtype is torch.float32 and not with_kernel
    assert (found - wanted).norm() / wanted.norm() < (1e-6 if exact else 5e-3)
    layer.bias = None
    assert (layer(x) - (wanted - torch.arange(96.0))).norm() / (wanted - torch.arange(96.0)).norm() < 0.01


def test_gradients_reach_the_input() -> None:
    weight = random_weight(torch.float32).clamp(-1, 1)
    layer = make_layer(weight, torch.float32)
    x = torch.randn(3, 128, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad[0], layer.dequantize().sum(0), rtol=1e-4, atol=1e-5)


def test_a_layer_stays_as_it_is() -> None:
    layer = make_layer(random_weight(torch.bfloat16), torch.bfloat16, bias=True)
    kept = layer.dequantize()
    layer.to(torch.float32)
    assert torch.equal(layer.dequantize(), kept)
    assert layer.bias.dtype is torch.float32
    assert layer.weight.dtype is torch.uint8
