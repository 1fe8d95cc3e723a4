"""Loading in int4: tensor by tensor, from the cache, and written for stock transformers."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import minicpm_core
from minicpm_core.files import read_header
from minicpm_core.int4 import cache
from minicpm_core.int4.linear import Linear4bit
from tests.toy import write_llama
from tests.toy_families import write_family

pytest.importorskip("bitsandbytes")

IDS = [[0, 30, 41, 52, 63, 30, 7, 99, 120, 31, 12, 44]]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, in which small models are kept too."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("minicpm_core.int4.model._WORTH", 0)
    return tmp_path / "cache" / "int4"


def logits_of(folder: Path, **options: Any) -> Any:
    import torch

    with minicpm_core.load(folder, **{"dtype": "float32", "quantization": "int4", **options}) as engine:
        with torch.inference_mode():
            return engine.model(input_ids=torch.tensor(IDS)).logits


def forbid_quantising(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicpm_core.int4.model.Memory", lambda *_: pytest.fail("was quantised again"))


@pytest.mark.parametrize("family", ["minicpm5", "minicpm-moe", "minicpm3"])
def test_a_second_load_quantises_nothing(family: str, tmp_path: Path, cached: Path, monkeypatch: Any) -> None:
    folder = write_family(tmp_path / "model", family)
    expected = logits_of(folder)
    (entry,) = cache.entries()
    assert entry.model == str(folder)
    assert not list(cached.glob(".*"))
    forbid_quantising(monkeypatch)
    assert logits_of(folder).equal(expected)
    copy = shutil.copytree(folder, tmp_path / "elsewhere")  # found by content
    assert logits_of(copy).equal(expected)


def test_one_thread_fewer_computes_while_a_copy_is_written(
    tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = write_family(tmp_path / "model", "minicpm5"), set()
    quantize = Linear4bit.quantize

    def count(self: Any, weight: Any, out: Any) -> None:
        seen.add(torch.get_num_threads())
        quantize(self, weight, out)

    monkeypatch.setattr(Linear4bit, "quantize", count)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        logits_of(folder)
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("family", "name"), [("minicpm5", "lm_head"), ("minicpm", "model.embed_tokens")])
def test_the_copy_holds_the_head_in_8_bits(
    family: str, name: str, tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import safe_open

    folder = write_family(tmp_path / "model", family)
    expected = logits_of(folder)
    (entry,) = cache.entries()
    with safe_open(entry.file, framework="pt") as stored:
        rows = stored.get_slice(f"{name}.weight").get_shape()[0]
        assert stored.get_slice(f"{name}.weight").get_dtype() == "I8"
        assert stored.get_slice(f"{name}.weight").get_shape() == [rows, 64]
        assert stored.get_slice(f"{name}.scales").get_shape() == [rows]
    header = read_header(entry.file)
    start = entry.file.stat().st_size - max(tensor["data_offsets"][1] for tensor in header.values())
    assert min(header, key=lambda part: header[part]["data_offsets"][0]) == f"{name}.weight"
    for part, tensor in header.items():
        first, end = (start + offset for offset in tensor["data_offsets"])
        assert first % min(64, (end - first) & (first - end)) == 0, part  # as its size would have it
    monkeypatch.setattr("minicpm_core.int4.model._FORMAT", "1")  # of copies with a head in 16 bits
    assert logits_of(folder).equal(expected)
    assert len(cache.entries()) == 2


def test_other_weights_or_another_dtype_are_other_copies(tmp_path: Path, cached: Path) -> None:
    folder = write_llama(tmp_path / "model")
    first = logits_of(folder)
    size = (folder / "model.safetensors").stat().st_size
    write_llama(folder, seed=1)
    assert (folder / "model.safetensors").stat().st_size == size
    assert not logits_of(folder).equal(first)
    assert logits_of(folder, dtype="bfloat16").dtype.itemsize == 2
    assert len(cache.entries()) == 3
    write_llama(folder)
    assert logits_of(folder).equal(first)
    assert len(cache.entries()) == 3


def test_weights_are_hashed_once(tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_llama(tmp_path / "model")
    os.utime(folder / "model.safetensors", (1, 1))
    monkeypatch.setattr(cache, "_SETTLED", -1.0)
    logits_of(folder)
    assert len(list(cached.glob("*.digest"))) == 1
    monkeypatch.setattr(cache, "_read_digest", lambda _: pytest.fail("hashed again"))
    logits_of(folder)


def test_a_damaged_copy_is_made_again(tmp_path: Path, cached: Path) -> None:
    folder = write_llama(tmp_path / "model")
    expected = logits_of(folder)
    (entry,) = cache.entries()
    for content in (b"", entry.file.read_bytes()[:-64]):
        entry.file.write_bytes(content)
        assert logits_of(folder).equal(expected)
        assert cache.entries()[0].size == entry.size


def test_a_full_disk_costs_the_copy_only(
    tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_llama(tmp_path / "model")
    expected = logits_of(folder)
    cache.clear()
    monkeypatch.setattr(cache, "_MARGIN", 2**60)
    with caplog.at_level(logging.WARNING):
        assert logits_of(folder).equal(expected)
    assert "is not kept" in caplog.text
    monkeypatch.setattr(cache, "_MARGIN", 0)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for place in ("minicpm_core.int4.copying._write", "minicpm_core.int4.cache.Slot.finish"):
        caplog.clear()
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(place, fail)
            assert logits_of(folder).equal(expected)
        assert caplog.text.count("No space left on device") == 1
    assert not list(cached.glob("*.safetensors"))
    assert not list(cached.glob(".*"))


def test_a_folder_that_cannot_be_written_costs_the_copy_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        logits_of(write_llama(tmp_path / "model"))
    assert "is not kept" in caplog.text
    assert cache.entries() == []


def test_weights_that_are_not_finite_leave_no_copy(tmp_path: Path, cached: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_llama(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"tensor model\.layers\.1\.mlp\.down_proj\.weight holds numbers"):
        logits_of(folder)
    assert not list(cached.glob(".*.tmp"))
    assert cache.entries() == []


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight"])
def test_missing_and_misshapen_tensors_are_named(name: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_llama(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    save_file(state | {name: state[name][:32].contiguous()}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"do not fit its config.json: tensor {name} has the shape"):
        logits_of(folder)
    del state[name]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"lacks 1 tensors that its config.json asks for, e.g. {name}"):
        logits_of(folder)


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.VARIABLE, "off")
    assert cache.cache_folder() is None
    assert cache.entries() == []
    assert cache.clear() == 0
    monkeypatch.setenv(cache.VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "minicpm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "minicpm"


def test_what_a_crash_left_is_removed(tmp_path: Path, cached: Path) -> None:
    cached.mkdir(parents=True)
    old, new = cached / ".a.1.1.tmp", cached / ".b.2.2.tmp"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    logits_of(write_llama(tmp_path / "model"))
    assert not old.exists()
    assert new.exists()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from Linux's /proc")
def test_the_peak_is_the_model_and_a_tensor(tmp_path: Path) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 16, "dtype": "bfloat16"}
    folder = write_llama(tmp_path / "model", **sizes)
    code = """if True:
        import sys, minicpm_core, minicpm_core.int4.model, transformers, re
        from pathlib import Path
        minicpm_core.load(sys.argv[2], quantization="int4", dtype="bfloat16").close()  # what is imported, once
        Path("/proc/self/clear_refs").write_text("5")
        read = lambda kind: int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
        before = read("VmRSS")
        engine = minicpm_core.load(sys.argv[1], quantization="int4", dtype="bfloat16")
        print(read("VmHWM") - before, engine.model.get_memory_footprint())
    """
    small = write_llama(tmp_path / "small")
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(small)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MINICPM_CACHE": "off"},
    )
    peak, model = map(int, done.stdout.split())
    stored = (folder / "model.safetensors").stat().st_size
    assert stored > model + 90_000_000
    assert peak < model + 30_000_000


@pytest.mark.parametrize("family", ["minicpm5", "minicpm", "minicpm3"])
def test_stock_transformers_opens_what_quantize_writes(family: str, tmp_path: Path) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_family(tmp_path / "published", family)
    out = minicpm_core.quantize(folder, tmp_path / "out")
    assert sorted(f.name for f in out.iterdir() if f.name.startswith((".", "model"))) == ["model.safetensors"]
    stock = AutoModelForCausalLM.from_pretrained(out, device_map="cpu").eval()
    with minicpm_core.load(folder, dtype="float32", quantization="int4") as engine:
        found = 0
        for name, module in engine.model.named_modules():
            if hasattr(module, "kernel_scales"):
                weight = stock.get_submodule(name).weight
                assert torch.equal(module.dequantize(), dequantize_4bit(weight.data, weight.quant_state)), name
                found += 1
        assert found >= (6 if family == "minicpm3" else 10)  # low ranks there are no multiples of 32
        with torch.inference_mode():
            expected = engine.model(input_ids=torch.tensor(IDS)).logits
            theirs = stock(input_ids=torch.tensor(IDS)).logits
        assert (theirs - expected).abs().max() <= 0.02 * expected.abs().max()
        assert AutoTokenizer.from_pretrained(out).encode("two years") == engine.tokenize("two years")
    assert logits_of(out, quantization=None).equal(expected)
    with pytest.raises(ValueError, match="are stored in int4 already"):
        minicpm_core.quantize(out, tmp_path / "again")


def test_quantize_refuses_what_nothing_opens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no experts in 4 bits"):
        minicpm_core.quantize(write_family(tmp_path / "moe", "minicpm-moe"), tmp_path / "out")
    with pytest.raises(ValueError, match="has the activation fatrelu"):
        minicpm_core.quantize(write_family(tmp_path / "s", "minicpm-s"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder = write_llama(tmp_path / "model")
    with pytest.raises(FileExistsError, match="is not empty"):
        minicpm_core.quantize(folder, folder)


def test_a_broken_quantize_leaves_no_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_llama(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.down_proj.weight"][3, 5] = float("inf")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"down_proj\.weight holds numbers that are not finite"):
        minicpm_core.quantize(folder, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    del state["model.norm.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 1 tensors .* e\.g\. model\.norm\.weight"):
        minicpm_core.quantize(folder, tmp_path / "out")


def test_parts_of_stored_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = minicpm_core.quantize(write_llama(tmp_path / "model"), tmp_path / "out")
    state, name = load_file(folder / "model.safetensors"), "model.layers.0.mlp.up_proj.weight"
    save_file(state | {f"{name}.absmax": state[f"{name}.absmax"][:-1].clone()}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"the parts of {name} do not fit together"):
        minicpm_core.load(folder)
    del state[f"{name}.nested_absmax"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"lack {name}.nested_absmax"):
        minicpm_core.load(folder)


def test_fp4_is_left_to_bitsandbytes(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = write_llama(tmp_path / "model")
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4")
    stock = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantized, device_map="cpu")
    shutil.copytree(folder, tmp_path / "fp4")
    stock.save_pretrained(tmp_path / "fp4")
    with minicpm_core.load(tmp_path / "fp4") as engine, torch.inference_mode():
        layer = engine.model.model.layers[0].mlp.up_proj
        assert type(layer).__module__.startswith("bitsandbytes")
        assert engine.model(input_ids=torch.tensor(IDS)).logits.isfinite().all()
    assert json.loads((tmp_path / "fp4" / "config.json").read_text())["quantization_config"]["bnb_4bit_quant_type"]
