"""int4 and int8 for every family, made while loading and stored; other methods are refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core.memory import plan
from tests.toy_families import CONFIGS, write_family
from tests.toy_vision import native, write_native

pytest.importorskip("bitsandbytes")

IDS = [[0, 30, 41, 52, 63, 30, 7, 99, 120, 31, 12, 44]]
UNQUANTISED = ("embed_tokens", "norm", "router")


def logits_of(engine: minicpm_core.Engine) -> Any:
    import torch

    with torch.inference_mode():
        return engine.model(input_ids=torch.tensor(IDS)).logits.float()


@pytest.mark.parametrize("family", CONFIGS)
def test_int4_makes_the_layers_small_and_leaves_the_rest(family: str, tmp_path: Path) -> None:
    import torch

    from minicpm_core.int4.head import suits

    folder = write_family(tmp_path, family, intermediate_size=128)
    with minicpm_core.load(folder, dtype="float32") as engine:
        plain, expected = engine.model.get_memory_footprint(), logits_of(engine)
    with minicpm_core.load(folder, dtype="float32", quantization="int4") as engine:
        kinds = {name: parameter.dtype for name, parameter in engine.model.named_parameters()}
        head = "lm_head.weight" if "lm_head.weight" in kinds else "model.embed_tokens.weight"  # tied
        assert kinds.pop(head) is (torch.int8 if suits(64) else torch.float32)
        for name, dtype in kinds.items():
            if any(part in name for part in UNQUANTISED):
                assert dtype is torch.float32, name
        quantised = {name for name, dtype in kinds.items() if dtype is torch.uint8}
        assert any("self_attn" in name for name in quantised)
        assert any("down" in name for name in quantised)
        assert any("gate_up" in name or "up_proj" in name for name in quantised)
        assert engine.model.get_memory_footprint() < 0.75 * plain
        assert torch.nn.functional.cosine_similarity(logits_of(engine), expected, dim=-1).min() > 0.8
        answer = engine.generate(
            [{"role": "user", "content": "Hello"}], sampling=minicpm_core.Sampling(max_new_tokens=3)
        )
        assert answer.usage is not None


@pytest.mark.parametrize("family", ["minicpm", "minicpm-moe", "minicpm3"])
@pytest.mark.parametrize("quantization", ["int4", "int8"])
def test_stored_bitsandbytes_weights_load(family: str, quantization: str, tmp_path: Path) -> None:
    with minicpm_core.load(
        write_family(tmp_path / "plain", family), dtype="float32", quantization=quantization
    ) as engine:
        expected = logits_of(engine)
        engine.model.save_pretrained(tmp_path / "stored")
        engine.tokenizer.save_pretrained(tmp_path / "stored")
    stored = plan(tmp_path / "stored")
    assert stored.quantization == quantization
    assert stored.weights == plan(tmp_path / "plain", quantization=quantization).weights
    with minicpm_core.load(tmp_path / "stored", dtype="float32") as engine:
        assert engine.family.name == family
        assert (logits_of(engine) - expected).abs().max() < 0.01  # the CPU kernel packs at the first call, in bfloat16
    other = "int8" if quantization == "int4" else "int4"
    with pytest.raises(ValueError, match=f"the weights are stored in {quantization}"):
        minicpm_core.load(tmp_path / "stored", quantization=other)


def test_shapes_that_the_kernels_do_not_take_stay_as_they_are(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "minicpm", intermediate_size=96)
    with minicpm_core.load(folder, dtype="float32", quantization="int4") as engine:
        layer = engine.model.model.layers[0]
        assert type(layer.mlp.down_proj).__name__ == "Linear"  # 96 inputs are no multiple of 64
        assert type(layer.mlp.up_proj).__name__ == "Linear4bit"
        logits_of(engine)


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        (
            {"quant_method": "awq", "bits": 4},
            "quantised with awq, for which there is no kernel here; what works: the unq",
        ),
        ({"quant_method": "gptq", "bits": 4}, 'quantised with gptq.*quantization="int4"'),
        ({"bits": 4}, "quantised with an unnamed method"),
        ({"quant_method": "bitsandbytes"}, "must have one of load_in_4bit and load_in_8bit"),
        ({"load_in_4bit": True, "modules": "os.system"}, "has unknown keys: modules"),
        (
            {"load_in_4bit": True, "bnb_4bit_compute_dtype": "nonsense"},
            "quantization_config in config.json cannot be used",
        ),
        (["awq"], "quantization_config in config.json is a list"),
    ],
)
def test_other_methods_are_refused_with_what_works(stored: Any, sentence: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, "minicpm4")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": stored}))
    with pytest.raises(ValueError, match=sentence):
        minicpm_core.load(folder)


@pytest.mark.parametrize("name", ["minicpmv4_6", native("minicpm_ocr")])
@pytest.mark.parametrize("quantization", ["int4", "int8"])
def test_what_sees_stays_as_it_is(name: str, quantization: str, tmp_path: Path) -> None:
    import torch

    with minicpm_core.load(write_native(tmp_path, name), dtype="float32", quantization=quantization) as engine:
        kinds = {
            f"{place}.{part}": parameter.dtype
            for place, module in engine.model.named_modules()
            for part, parameter in module.named_parameters(recurse=False)
        }
        sees = {place: dtype for place, dtype in kinds.items() if ".vision_tower." in place or ".merger." in place}
        assert len(sees) >= 20
        assert set(sees.values()) == {torch.float32}
        assert {torch.int8 if quantization == "int8" else torch.uint8} <= set(kinds.values())


def test_int8_logs_no_line_per_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with minicpm_core.load(write_family(tmp_path, "minicpm"), dtype="float32", quantization="int8") as engine:
        assert logits_of(engine).isfinite().all()
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]
    logging.getLogger("bitsandbytes.autograd._functions").warning("something else")
    assert [record.message for record in caplog.records if record.name.startswith("bitsandbytes")] == ["something else"]
