"""The output head and tied embeddings in 8 bits: the products, the error, and what is stored and loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bitsandbytes")

import torch
import transformers
from safetensors.torch import load_file, save_file

import minicpm_core
from minicpm_core.checkpoints import load_weights, open_checkpoint
from minicpm_core.int4 import head
from minicpm_core.memory import plan
from tests.toy_families import write_family

DEMO = Path(minicpm_core.__file__).parent / "demo"
needs_head = pytest.mark.skipif(not head.has_kernel(), reason="this torch has no kernel for 8-bit weights on the CPU")


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
@pytest.mark.parametrize("columns", [64, 100])
@pytest.mark.parametrize("tokens", [1, head.FEW, head.FEW + 1, head.SOME, head.SOME + 1])
@pytest.mark.parametrize("exact_numbers", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_logits(
    rows: int, columns: int, tokens: int, exact_numbers: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exact_numbers:
        monkeypatch.setattr(head, "multiplies_whole_numbers", lambda: False)
    monkeypatch.setattr(head, "_CONVERTED", 256)  # so that the rows come in several parts
    monkeypatch.setattr(head, "CHUNK", 64 * 7)
    torch.manual_seed(0)
    weight, x = torch.randn(rows, columns).to(dtype), torch.randn(1, tokens, columns).to(dtype)
    made = make_head(weight)
    found, exact = made(x).double(), x.double() @ weight.double().T
    assert found.shape == (1, tokens, rows)
    meant = x.double() @ (made.weight.double() * made.scales.double()[:, None]).T
    assert (found - meant).norm() / meant.norm() < (1e-4 if dtype is torch.float32 else 4e-3)
    assert (found - exact).norm() / exact.norm() < 0.01


@pytest.mark.skipif(not head.multiplies_whole_numbers(), reason="this processor adds 8-bit products in 16 bits")
def test_inputs_of_very_different_sizes_are_kept() -> None:
    made = make_head(torch.randn(600, 64))
    x = torch.randn(head.FEW + 1, 64) * torch.tensor([1e-20, 1.0, 1e4, 1e20, 1e-3])[:, None]
    x[4, 1:] *= 1e-3  # beside one large number
    meant = x.double() @ made.dequantize().double().T
    assert ((made(x) - meant).norm(dim=-1) / meant.norm(dim=-1)).max() < 1e-3
    assert made(torch.zeros(6, 64)).equal(torch.zeros(6, 600))
    x[2, 5] = float("nan")
    assert made(x).isnan().all(-1).tolist() == [False, False, True, False, False]


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
    tied = head.Head8bit(64, 40, torch.float32, tied=True)
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


@pytest.fixture(params=["minicpm5", "minicpm", "minicpm3"])  # a head of its own, tied embeddings, embeddings that scale
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[minicpm_core.Engine]:
    folder = write_family(tmp_path / "model", request.param)
    with minicpm_core.load(folder, dtype="float32", quantization="int4") as engine:
        yield engine


@needs_head
def test_it_is_loaded_in_place_of_the_16_bit_one(loaded: minicpm_core.Engine) -> None:
    model, tied = loaded.model, loaded.family.name != "minicpm5"
    assert isinstance(model.lm_head, head.Head8bit)
    assert model.lm_head.tied == tied
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, head.Embedding8bit) == tied
    stored = load_file(Path(model.config.name_or_path) / "model.safetensors")
    weight = stored["model.embed_tokens.weight" if tied else "lm_head.weight"]
    for name, part in quantize(weight).items():
        assert getattr(model.lm_head, name).equal(part)
        assert not tied or getattr(embeddings, name) is getattr(model.lm_head, name)
    ids = torch.tensor([[5, 7]])
    factor = 12.0 if loaded.family.name == "minicpm3" else 1.0
    meant = stored["model.embed_tokens.weight"][ids] * factor
    assert (embeddings(ids) - meant).abs().max() <= 0.51 / 127 * meant.abs().max() * tied
    assert model.dtype is torch.float32


@needs_head
def test_logits_are_near_those_of_the_16_bit_head(loaded: minicpm_core.Engine) -> None:
    near_those_of_the_16_bit_head(loaded, torch.tensor([[0, 30, 41, 52, 63, 30, 7, 99, 120, 31, 12, 44]]))


@needs_head
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_of_the_demo_are_near_those_of_the_16_bit_head(dtype: str) -> None:
    with minicpm_core.load(DEMO, dtype=dtype, quantization="int4") as engine:
        ids = torch.tensor([engine.tokenize("Which lamp is for the city? The lamp that the city bought in two years.")])
        near_those_of_the_16_bit_head(engine, ids)


def near_those_of_the_16_bit_head(engine: minicpm_core.Engine, ids: torch.Tensor) -> None:
    """Assert that what the last layer gives leads to logits within 2 % of their spread, 0.8 % in the mean square."""
    model = engine.model
    name = "lm_head.weight"
    stored = load_file(Path(model.config.name_or_path) / "model.safetensors")
    weight = stored.get(name, stored["model.embed_tokens.weight"]).float()
    seen: list[torch.Tensor] = []
    with torch.inference_mode(), model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        model(input_ids=ids)
        found = model.lm_head(seen[0]).float()
    wanted = seen[0].float() @ weight.T
    error, spread = found - wanted, wanted - wanted.mean(-1, keepdim=True)
    assert found.shape == (1, ids.shape[1], len(weight))
    assert error.norm() <= 0.008 * spread.norm()
    assert error.abs().max() <= 0.02 * spread.abs().max()


@needs_head
def test_it_is_saved_as_a_standard_checkpoint(loaded: minicpm_core.Engine, tmp_path: Path) -> None:
    loaded.model.save_pretrained(tmp_path / "saved")
    names = set(load_file(tmp_path / "saved" / "model.safetensors"))
    tied = loaded.family.name != "minicpm5"
    assert ("lm_head.weight" in names) != tied
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", device_map="cpu").eval()
    ids = torch.tensor([[3, 9, 27]])
    with torch.inference_mode():
        expected, found = (model(input_ids=ids).logits.float() for model in (loaded.model, theirs))
    assert type(theirs.lm_head) is torch.nn.Linear
    assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


@needs_head
def test_resizing_is_refused(loaded: minicpm_core.Engine) -> None:
    with pytest.raises(ValueError, match="the output head is in 8 bits and cannot be resized; add tokens to the unqu"):
        loaded.model.resize_token_embeddings(700)


@needs_head
def test_columns_that_the_kernel_does_not_take_stay_as_they_are(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "minicpm", hidden_size=96)
    with minicpm_core.load(folder, dtype="float32", quantization="int4") as engine:
        assert type(engine.model.lm_head) is torch.nn.Linear
        assert engine.model.lm_head.weight is engine.model.get_input_embeddings().weight
        engine.model.resize_token_embeddings(700)


def test_without_the_kernel_the_head_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "has_kernel", lambda: False)
    folder = write_family(tmp_path, "minicpm5")
    with minicpm_core.load(folder, dtype="float32", quantization="int4") as engine:
        assert type(engine.model.lm_head) is torch.nn.Linear
        assert plan(folder, dtype="float32", quantization="int4").table_weights == 2 * 4 * 64 * len(
            engine.model.lm_head.weight
        )


@needs_head
def test_a_head_that_is_not_finite_is_named(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "minicpm5")
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"][5, 7] = float("inf")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"tensor lm_head\.weight holds numbers that are not finite"):
        minicpm_core.load(folder, dtype="float32", quantization="int4")
    del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 1 tensors that its config.json asks for, e.g. lm_head\.weight"):
        minicpm_core.load(folder, dtype="float32", quantization="int4")


@needs_head
@pytest.mark.parametrize("family", ["minicpm5", "minicpm"])
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("embeddings", [True, False])  # saved below the LoRA layers, as PEFT does by default
def test_lora_lies_over_it(family: str, target: str, embeddings: bool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = write_family(tmp_path / "model", family)
    adapt(peft, folder, tmp_path / "adapter", [target], embeddings)
    found = {}
    for quantization in ("none", "int4"):
        with minicpm_core.load(folder, dtype="float32", quantization=quantization, adapter=tmp_path / "adapter") as e:
            found[quantization] = logits_of(e)
            e.set_adapter(None)
            found[quantization + " alone"] = logits_of(e)
    alone, noise = found["int4 alone"], found["int4 alone"] - found["none alone"]
    assert (found["int4"] - alone).norm() > 0.2 * alone.norm()
    assert (found["int4"] - found["none"]).norm() < 2 * noise.norm()


@needs_head
@pytest.mark.parametrize("family", ["minicpm5", "minicpm"])
def test_adapters_that_replace_it_are_refused(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = write_family(tmp_path / "model", family)
    adapt(peft, folder, tmp_path / "adapter", ["q_proj"], False, modules_to_save=["lm_head"])
    with pytest.raises(ValueError, match=r"does not fit this model: an output head in 8 bits cannot be copied.*merge"):
        minicpm_core.load(folder, dtype="float32", quantization="int4", adapter=tmp_path / "adapter")


def adapt(peft: Any, folder: Path, out: Path, targets: list[str], embeddings: bool, **options: Any) -> None:
    torch.manual_seed(3)
    model = load_weights(open_checkpoint(folder), dtype=torch.float32, device="cpu")
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(model, config).save_pretrained(out, save_embedding_layers=embeddings)


def logits_of(engine: minicpm_core.Engine) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = engine.model(input_ids=torch.tensor([[0, 30, 41, 52, 63, 30, 7, 99]])).logits
    return logits
