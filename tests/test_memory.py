"""The memory plan: told from headers, kept by the engine, refused in numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import minicpm_core
from minicpm_core import Sampling
from minicpm_core.devices import limit_allocator
from minicpm_core.memory import plan, plan_published, read_needs
from minicpm_core.memory_plan import RUNTIME_BYTES
from minicpm_core.published import PUBLISHED
from minicpm_core.sizes import parse_bytes
from tests.recording import recorded_passes
from tests.toy import write_llama

GREEDY = Sampling(temperature=0.0, max_new_tokens=2)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("wide"), max_position_embeddings=100_000)


@pytest.mark.parametrize(
    ("size", "expected"), [("4GiB", 4 * 2**30), ("1.5 gb", 1_500_000_000), ("300 MiB", 300 * 2**20), (7, 7), ("12", 12)]
)
def test_sizes_are_read(size: int | str, expected: int) -> None:
    assert parse_bytes(size) == expected


@pytest.mark.parametrize("size", ["", "four", "4 GiBs", "-1GiB", 0])
def test_sizes_that_mean_nothing_are_refused(size: int | str) -> None:
    with pytest.raises(ValueError, match="memory size"):
        parse_bytes(size)


def test_a_limit_in_the_environment_is_named_where_it_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_minicpm import ChatMiniCPM
    from llamaindex_minicpm import MiniCPM

    for make in (ChatMiniCPM, MiniCPM):
        for size, expected in (("3 GiB", "3 GiB"), ("", None)):
            monkeypatch.setenv("MINICPM_MEMORY_LIMIT", size)
            assert make(model="demo").memory_limit == expected
        monkeypatch.setenv("MINICPM_MEMORY_LIMIT", "lots")
        with pytest.raises(ValueError, match="variable MINICPM_MEMORY_LIMIT: memory size 'lots' cannot be read"):
            make(model="demo")


def test_published_shapes_have_the_published_number_of_parameters() -> None:
    counts = {model.name: model.parameters for model in PUBLISHED}
    assert counts["openbmb/MiniCPM5-1B"] == 1_080_632_832
    assert round(counts["openbmb/MiniCPM4-0.5B"] / 1e9, 2) == 0.43
    assert round(counts["openbmb/MiniCPM-1B-sft-bf16"] / 1e9, 2) == 1.36
    assert round(counts["openbmb/MiniCPM-2B-sft-bf16"] / 1e9, 1) == 2.7
    assert round(counts["openbmb/MiniCPM4.1-8B"] / 1e9) == 8


def test_a_published_shape_is_planned_by_kind() -> None:
    plain = plan_published(PUBLISHED[1], None, None)
    assert (plain.linear_weights, plain.table_weights, plain.other_weights) == (
        24 * 2 * (2 * 1536 * 128 * (16 + 2) + 3 * 1536 * 4608),
        2 * 2 * 130560 * 1536,
        2 * 49 * 1536,
    )
    assert plain.kv_cache == 131072 * 24 * 2 * 2 * 128 * 2


def test_the_report_has_the_plan_and_what_the_weights_take_in_fact(toy: Path) -> None:
    with minicpm_core.load(toy) as engine:
        report = engine.memory_report()
    made = plan(toy, memory_limit=2**40)
    assert report == made.parts | {key: report[key] for key in ("weights", "total", "parameters")}
    assert report["total"] == sum(made.parts.values())
    assert report["weights"] == report["linear_weights"] + report["table_weights"] + report["other_weights"]
    assert report["parameters"] - report["weights"] < 200  # the frequencies of the rotary embedding
    assert report["kv_cache"] == 2 * 2 * 2 * 16 * 4 * 512  # keys and values, layers, heads, head_dim, bytes, tokens
    assert report["runtime"] == RUNTIME_BYTES


def test_the_context_window_is_fitted_to_the_limit(wide: Path) -> None:
    whole = plan(wide)
    assert (whole.context_window, whole.prefill_chunk, whole.fits) == (100_000, 1024, True)
    limit = whole.total - whole.kv_cache // 2
    fitted = plan(wide, memory_limit=limit)
    assert 8192 < fitted.context_window < 100_000
    assert fitted.total <= limit
    assert not replace(plan(wide, context_window=fitted.context_window + 1), limit=limit).fits
    with minicpm_core.load(wide, memory_limit=limit) as engine:
        assert engine.context_window == fitted.context_window
    less = RUNTIME_BYTES + (limit - RUNTIME_BYTES) // 2
    half = plan(wide, memory_limit=less, dtype="bfloat16").context_window
    assert half > 1.5 * plan(wide, memory_limit=less).context_window


def test_the_prefill_chunk_is_fitted_to_the_limit(wide: Path) -> None:
    totals = {}
    for chunk in (1024, 512, 256, 128, 64):
        needs = read_needs(wide)
        totals[chunk] = needs._plan(4096, chunk).total
        assert plan(wide, context_window=4096, memory_limit=totals[chunk]).prefill_chunk == chunk
    assert list(totals.values()) == sorted(totals.values(), reverse=True)
    none = plan(wide, context_window=4096, memory_limit=totals[64] - 1)
    assert (none.prefill_chunk, none.fits) == (64, False)


def test_a_free_window_is_not_cut_below_8192_tokens_for_longer_passes(wide: Path) -> None:
    needs = read_needs(wide)
    assert plan(wide, memory_limit=needs._plan(8192, 1024).total).prefill_chunk == 1024
    fitted = plan(wide, memory_limit=needs._plan(8192, 1024).total - 1)
    assert fitted.prefill_chunk == 512
    assert fitted.context_window > 8192


def test_the_engine_reads_prompts_in_the_planned_chunks(wide: Path) -> None:
    limit = read_needs(wide)._plan(4096, 64).total
    with minicpm_core.load(wide, context_window=4096, memory_limit=limit) as engine:
        with recorded_passes(engine) as passes:
            usage = engine.generate("lamp " * 150, sampling=GREEDY).usage
        assert usage is not None
        count = usage.prompt_tokens
        lengths = [len(ids) for ids in passes]
        assert count > 64
        assert lengths[: -(-count // 64)] == [64] * (count // 64) + ([count % 64] if count % 64 else [])
        with recorded_passes(engine) as passes:
            engine.generate_batch(["lamp " * 100, "city " * 100], sampling=GREEDY)
        assert max(len(ids) for ids in passes) == 64  # one row after the other


def test_what_cannot_fit_is_refused_before_a_weight_is_read(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicpm_core.loading.load_weights", lambda *_, **__: pytest.fail("weights were read"))
    message = (
        r"needs 0\.50 GiB .*limit is 0\.10 GiB; what helps: "
        r'quantization="int4" \(frees 0\.3 MiB\), quantization="int8" \(frees 0\.2 MiB\), a higher memory_limit'
    )
    with pytest.raises(MemoryError, match=message):
        minicpm_core.load(toy, memory_limit="100MiB")


def test_the_refusal_names_first_what_frees_most(wide: Path) -> None:
    limit = RUNTIME_BYTES + 2**20
    with pytest.raises(MemoryError, match=r"what helps: context_window=50000 \(frees .*, quantization=") as refused:
        minicpm_core.load(wide, context_window=100_000, memory_limit=limit)
    assert "prefill chunk" not in str(refused.value)  # it is the shortest already
    needs = read_needs(wide, memory_limit=limit)
    made = needs.plan(100_000)
    changes = needs.changes(made)
    assert [c.name for c in changes] == ["context_window=50000", 'quantization="int4"', 'quantization="int8"']
    assert changes[0].frees == made.total - needs._plan(50_000, 64).total
    assert changes[1].frees == made.weights - plan(wide, quantization="int4").weights - 2 * 64 * 128
    assert not any(change.fits for change in changes)


def test_a_change_that_is_enough_says_so(wide: Path) -> None:
    limit = read_needs(wide)._plan(1000, 64).total
    needs = read_needs(wide, memory_limit=limit)
    changes = {change.name: change.fits for change in needs.changes(needs.plan(2000))}
    assert changes == {"context_window=1000": True, 'quantization="int4"': False, 'quantization="int8"': False}
    assert needs.changes(needs._plan(2000, 1024))[0].name == "a prefill chunk of 64 (set by the limit)"


def test_a_context_window_beyond_the_models_is_refused(toy: Path) -> None:
    with pytest.raises(ValueError, match="context_window is 513; this model accepts 1 to 512 tokens"):
        minicpm_core.load(toy, context_window=513)
    with minicpm_core.load(toy, context_window=64) as engine:
        assert engine.context_window == 64


def test_an_embedding_model_beside_it_is_counted(toy: Path, wide: Path) -> None:
    size = (toy / "model.safetensors").stat().st_size
    alone, beside = plan(wide), plan(wide, embeddings=toy)
    assert beside.embeddings == size
    assert beside.total == alone.total + size
    limit = alone.total
    assert plan(wide, embeddings=toy, memory_limit=limit).context_window < 100_000
    changes = {c.name: c.frees for c in read_needs(wide, memory_limit=limit, embeddings=toy).changes(beside)}
    assert changes["no embedding model beside it"] == size
    with pytest.raises(FileNotFoundError, match="no folder"):
        plan(wide, embeddings="./nowhere")


class _Cuda:
    """What `limit_allocator` asks torch.cuda for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[float, int]] = []
        properties = SimpleNamespace(total_memory=8 * 2**30)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *call: self.calls.append(call))


@pytest.mark.parametrize(
    ("device", "size", "call"),
    [
        ("cuda", 2 * 2**30, (0.25, 1)),
        ("cuda:0", 4 * 2**30, (0.5, 0)),
        ("cuda:0", 80 * 2**30, (1.0, 0)),
        ("cuda:0", -5, (0.0, 0)),
    ],
)
def test_on_a_gpu_the_limit_is_the_allocators(
    device: str, size: int, call: tuple[float, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = _Cuda(monkeypatch)
    limit_allocator(device, size)
    assert cuda.calls == [call]


def test_the_allocator_of_the_cpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = _Cuda(monkeypatch)
    limit_allocator("cpu", 2**30)
    assert cuda.calls == []


def test_loading_sets_the_allocators_limit_only_where_one_is_given(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("minicpm_core.loading.limit_allocator", lambda *call: calls.append(call))
    minicpm_core.load(toy).close()
    assert calls == []
    minicpm_core.load(toy, memory_limit="2GiB").close()
    assert calls == [("cpu", 2 * 2**30 - RUNTIME_BYTES)]
