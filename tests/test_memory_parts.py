"""The parts of a memory plan: exact bytes by hand, and against the tensors that engines hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minicpm_core import load
from minicpm_core.memory import plan, read_needs
from minicpm_core.picture_bytes import count_pictures
from minicpm_core.prefix import Context, Prefixes
from minicpm_core.weight_bytes import Form
from minicpm_core.working_memory import Shape, workspace
from tests.toy_families import CONFIGS, write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

_SCALE = 8
"""Bytes of a number that scaled embeddings keep."""
VISION = ("2.0", "2.5", "2.6", "4.5", "minicpmv4_6")
LLAMA = {
    "hidden_size": 1536,
    "intermediate_size": 4608,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 130560,
}
LATENT = {
    "hidden_size": 2560,
    "intermediate_size": 6400,
    "num_hidden_layers": 62,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "kv_lora_rank": 256,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "qk_head_dim": 96,
    "v_head_dim": 64,
    "vocab_size": 73448,
}
LINEAR = LLAMA | {
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 6,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 64,
    "linear_conv_kernel_dim": 4,
}


def shape(values: dict[str, Any], **more: Any) -> Shape:
    return Shape.read(SimpleNamespace(**values, **more))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Form(None), 7_077_888 * 2),
        (Form(None, 4.0), 7_077_888 * 4),
        (Form("int8"), 7_077_888 + 4 * 4608),  # one scale for each row
        (Form("int4", device="cuda"), 3_538_944 + 110_592 + 432 * 4 + 4),  # codes, scales, theirs, the offset
    ],
)
def test_bytes_of_a_linear_layer(form: Form, expected: int) -> None:
    assert form.linear(4608, 1536) == expected


def test_the_cpu_kernels_scales_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Form, "_has_kernel", True)
    size = Form("int4").linear(4608, 1536)
    assert size == 3_538_944 + 110_592 + 432 * 4 + 4 + 2 * 110_592
    assert round(size / (4608 * 1536), 4) == 0.5471
    monkeypatch.setattr(Form, "_has_kernel", False)
    assert round(Form("int4").linear(4608, 1536) / (4608 * 1536), 4) == 0.5159


@pytest.mark.parametrize(("rows", "columns"), [(33, 64), (32, 65)])
def test_shapes_that_the_kernel_cannot_take_stay_in_16_bit(rows: int, columns: int) -> None:
    assert Form("int4").linear(rows, columns) == 2 * rows * columns


def test_bytes_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicpm_core.weight_bytes._suits", lambda columns: columns % 64 == 0)
    assert Form("int4").table(130560, 1536, is_head=True) == 130560 * 1536 + 4 * 130560
    whole = 2 * 130560 * 1536
    for form in (Form(None), Form("int8"), Form("int4", device="cuda:0"), Form("int4", stock=True)):
        assert form.table(130560, 1536, is_head=True) == whole
    assert Form("int4").table(130560, 1536, is_head=False) == whole
    assert Form("int4").table(100, 96, is_head=True) == 2 * 100 * 96


def test_keys_and_values_grow_with_the_text() -> None:
    assert shape(LLAMA).kv_cache(1, 2) == 24 * 2 * 2 * 128 * 2 == 24_576
    assert shape(LLAMA).kv_cache(2048, 4) == 2048 * 49_152
    assert shape(LLAMA | {"head_dim": None}).kv_cache(1, 2) == 24 * 2 * 2 * 96 * 2  # hidden_size / heads
    assert shape(LLAMA).states(2) == 0


def test_latent_attention_keeps_the_latent_and_the_rotated_part() -> None:
    assert shape(LATENT).kv_cache(1, 2) == 62 * (256 + 32) * 2 == 35_712


def test_linear_attention_keeps_a_state_that_does_not_grow() -> None:
    mixed = shape(LINEAR)
    assert mixed.kv_cache(1, 2) == 6 * 2 * 2 * 128 * 2
    state, convolution = 32 * 128 * 64 * 4, (2 * 16 * 128 + 32 * 64) * 4 * 2
    assert mixed.states(2) == 18 * (state + convolution)


def test_sliding_layers_keep_their_window() -> None:
    kinds = ["full_attention"] * 6 + ["sliding_attention"] * 18
    sliding = shape(LLAMA, layer_types=kinds, sliding_window=1000)
    assert sliding.kv_cache(500, 2) == 500 * 24_576
    assert sliding.kv_cache(4000, 2) == (6 * 4000 + 18 * 1000) * 1024


def test_sparse_attention_is_planned_dense_as_it_is_computed(tmp_path: Path) -> None:
    made = plan(write_family(tmp_path, "minicpm4.1"))
    assert made.kv_cache == 256 * 2 * 2 * 2 * 16 * 4  # tokens, keys and values, layers, heads, head_dim, bytes


def test_activations_are_those_of_the_largest_step() -> None:
    plain = shape(LLAMA)
    mlp, residual = 3 * 1024 * 4608 * 2, 4 * 1024 * 1536 * 2
    assert plain.activations(1024, 1024, 2) == 2 * (mlp + residual)
    queries, mask, repeated = 3 * 1024 * 16 * 128 * 2, 1024 * 8192 * 3, 2 * 16 * 128 * 8192 * 2
    assert plain.activations(1024, 8192, 2) == 2 * (residual + queries + mask + repeated)
    assert plain.activations(1024, 100, 2) == plain.activations(100, 100, 2)  # a chunk is no longer than the text


def test_latent_attention_makes_scores_of_all_heads() -> None:
    latent = shape(LATENT)
    grown = latent.activations(1024, 4096, 2) - latent.activations(1024, 4095, 2)
    expanded = 40 * (64 + 64 + 96) * (2 + 4)  # keys and values of a token, and both in float32
    assert grown == 2 * (expanded + 1024 * 3) + 2 * 4 * 40 * 1024


def test_the_delta_rule_computes_in_float32() -> None:
    delta = 6 * 32 * 128 + 4 * 32 * 64 + 3 * 32 * 64
    expected = 2 * (4 * 1024 * 1536 * 2 + (1024 + 64) * delta * 4)
    assert shape(LINEAR).activations(1024, 1024, 2) == expected


def test_logits_of_the_last_tokens_only() -> None:
    assert shape(LLAMA).logits(2) == 130560 * (17 * 2 + 4 * 4)


def test_the_workspace_holds_a_part_of_large_layers() -> None:
    assert workspace(1536 * 4608, "int4", "cpu") == 2 * 1536 * 4608
    assert workspace(4096 * 16384, "int4", "cpu") == 32 * 2**20
    assert workspace(4096 * 16384, "int4", "cuda") == 2 * 4096 * 16384
    assert workspace(4096 * 16384, None, "cpu") == 0


@pytest.fixture(scope="module", params=[*CONFIGS, *VISION])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, made = request.param, tmp_path_factory.mktemp("family")
    if name in CONFIGS:
        return write_family(made, name)
    return write_native(made, name) if name.startswith("minicpm") else write_minicpmv(made, name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_planned_weights_are_those_that_the_engine_holds(folder: Path, dtype: str) -> None:
    made = plan(folder, dtype=dtype)
    with load(folder, dtype=dtype) as engine:
        assert made.weights == pytest.approx(sum(_sizes(engine.model)), abs=_SCALE)
        assert made.table_weights == pytest.approx(sum(_sizes(*_tables(engine.model))), abs=_SCALE)


@pytest.mark.parametrize("quantization", ["int4", "int8"])
def test_the_planned_weights_are_those_of_the_quantised_engine(folder: Path, quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    made = plan(folder, dtype="bfloat16", quantization=quantization)
    with load(folder, dtype="bfloat16", quantization=quantization) as engine:
        assert made.weights == pytest.approx(sum(_sizes(engine.model)), abs=_SCALE)
        assert made.table_weights == pytest.approx(sum(_sizes(*_tables(engine.model))), abs=_SCALE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_planned_cache_is_that_which_the_engine_fills(folder: Path, dtype: str) -> None:
    needs = read_needs(folder, dtype=dtype)
    with load(folder, dtype=dtype) as engine, torch.inference_mode():
        context = Context(engine.model, Prefixes(0))
        for start in (10, 10 + 64):
            context.read(list(range(start, start + 64)))
        layers = context._cache.layers
        kept = [t for layer in layers for t in (getattr(layer, "keys", None), getattr(layer, "values", None))]
        states = [t for layer in layers for t in (*_states(layer, "conv_states"), *_states(layer, "recurrent_states"))]
    value = needs.form.value
    assert sum(t.numel() * t.element_size() for t in kept if t is not None) == needs.shape.kv_cache(128, value)
    assert sum(t.numel() * t.element_size() for t in states) == needs.shape.states(value)


def test_a_checkpoint_in_int4_is_planned_as_it_is_loaded(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from minicpm_core.int4.export import quantize

    source = write_family(tmp_path / "source", "minicpm", dtype="bfloat16", hidden_size=64, intermediate_size=128)
    quantize(source, tmp_path / "int4")
    made = plan(tmp_path / "int4", dtype="bfloat16")
    assert made.quantization == "int4"
    assert made.weights == plan(source, dtype="bfloat16", quantization="int4").weights


def test_pickled_weights_are_planned_from_the_config(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = write_family(tmp_path, "minicpm", dtype="bfloat16")
    exact = plan(folder, dtype="bfloat16")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert plan(folder, dtype="bfloat16").weights == pytest.approx(exact.weights, rel=0.1)


def test_pictures_are_planned_for_the_most_slices(tmp_path: Path) -> None:
    from minicpm_core.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(write_minicpmv(tmp_path / "v", "2.6"))
    found = count_pictures(checkpoint, 128, 2)
    patches = int(16 * 1.13)  # of a view of 56 pixels in patches of 14, rounded up
    kept, tower = 7 * patches * (1152 + 3 * 14 * 14), 4 * patches * (2 * 4304 + 6 * 1152)
    assert found.peak == (kept + max(tower, 7 * patches * 128 * 6)) * 2
    assert found.token == 2 * 128 * 2
    blind = open_checkpoint(write_family(tmp_path / "text", "minicpm"))
    assert count_pictures(blind, 64, 2).peak == 0
    with_pictures, without = read_needs(tmp_path / "v"), read_needs(tmp_path / "text")
    assert with_pictures.plan(64).pictures > 0
    assert without.plan(64).pictures == 0


def _states(layer: Any, name: str) -> list[torch.Tensor]:
    return [t for t in getattr(layer, name, {}).values() if t is not None]


def _tables(model: Any) -> list[Any]:
    return [m for name, m in model.named_modules() if name.endswith(("embed_tokens", "lm_head"))]


def _sizes(*modules: Any) -> Iterator[int]:
    """Yield the bytes of each tensor that modules hold, those of bitsandbytes' int8 layers included."""
    seen: set[int] = set()
    for module in (inner for outer in modules for inner in outer.modules()):
        held = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        tensors = [t for name, t in held if not name.endswith("inv_freq")]
        tensors += [getattr(getattr(module, "weight", None), part, None) for part in ("CB", "SCB")]
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                yield tensor.numel() * tensor.element_size()
