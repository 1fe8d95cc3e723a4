"""The memory plan: told from headers, kept by the engine, refused in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

import minicpm_core
from minicpm_core.memory import parse_bytes, plan, plan_published
from minicpm_core.published import PUBLISHED
from tests.toy import write_llama


@pytest.mark.parametrize(
    ("size", "expected"), [("4GiB", 4 * 2**30), ("1.5 gb", 1_500_000_000), ("300 MiB", 300 * 2**20), (7, 7), ("12", 12)]
)
def test_sizes_are_read(size: int | str, expected: int) -> None:
    assert parse_bytes(size) == expected


@pytest.mark.parametrize("size", ["", "four", "4 GiBs", "-1GiB", 0])
def test_sizes_that_mean_nothing_are_refused(size: int | str) -> None:
    with pytest.raises(ValueError, match="memory size"):
        parse_bytes(size)


def test_published_shapes_have_the_published_number_of_parameters() -> None:
    counts = {model.name: model.linear_weights + model.other_weights for model in PUBLISHED}
    assert counts["openbmb/MiniCPM5-1B"] == 1_080_632_832
    assert round(counts["openbmb/MiniCPM4-0.5B"] / 1e9, 2) == 0.43
    assert round(counts["openbmb/MiniCPM-1B-sft-bf16"] / 1e9, 2) == 1.36
    assert round(counts["openbmb/MiniCPM-2B-sft-bf16"] / 1e9, 1) == 2.7
    assert round(counts["openbmb/MiniCPM4.1-8B"] / 1e9) == 8


def test_weights_are_what_the_loaded_model_has(toy: Path) -> None:
    with minicpm_core.load(toy) as engine:
        report = engine.memory_report()
        assert report["weights"] == sum(p.numel() * 4 for p in engine.model.parameters())
        assert report["kv_cache"] == 2 * 2 * 2 * 16 * 4 * 512  # keys and values, layers, heads, head_dim, bytes, tokens
        assert report["total"] == sum(report[part] for part in ("weights", "kv_cache", "activations", "runtime"))


def test_the_context_window_is_fitted_to_the_limit(tmp_path: Path) -> None:
    folder = write_llama(tmp_path, max_position_embeddings=100_000)
    whole = plan(folder)
    assert (whole.context_window, whole.fits) == (100_000, True)
    limit = whole.total - whole.kv_cache // 2
    fitted = plan(folder, memory_limit=limit)
    assert fitted.context_window == 50_000
    assert fitted.total <= limit < fitted.total + 2 * whole.kv_cache // 100_000
    with minicpm_core.load(folder, memory_limit=whole.total, dtype="float32") as engine:
        assert 0 < engine.context_window < 60_000  # twice the bytes a value of float32


def test_what_cannot_fit_is_refused_before_a_weight_is_read(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicpm_core.engine.load_weights", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(MemoryError, match=r"needs 0\.45 GiB .*limit is 0\.10 GiB; what helps: quantization=\"int4\""):
        minicpm_core.load(toy, memory_limit="100MiB")


def test_a_context_window_beyond_the_models_is_refused(toy: Path) -> None:
    with pytest.raises(ValueError, match="context_window is 513; this model accepts 1 to 512 tokens"):
        minicpm_core.load(toy, context_window=513)
    with minicpm_core.load(toy, context_window=64) as engine:
        assert engine.context_window == 64


def test_int4_makes_the_linear_layers_a_quarter() -> None:
    model = PUBLISHED[1]
    plain, small = plan_published(model, None, None), plan_published(model, "int4", None)
    assert plain.weights - small.weights == pytest.approx(model.linear_weights * (2 - 0.516))
