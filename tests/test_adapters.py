"""LoRA adapters over every kind of family: loaded, switched, merged, refused."""

from __future__ import annotations

import builtins
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import minicpm_core
from minicpm_core import merge_adapter
from tests.toy_families import CONFIGS, write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

peft = pytest.importorskip("peft")

IDS = [[0, 30, 41, 52, 63, 30, 7, 99, 120, 31, 12, 44]]
TARGETS = {"minicpm3": ["q_b_proj", "o_proj", "up_proj"], "minicpm-moe": ["q_proj", "v_proj"]}


def logits_of(engine: minicpm_core.Engine) -> Any:
    import torch

    with torch.inference_mode():
        return engine.model(input_ids=torch.tensor(IDS)).logits.float()


def write_adapter(folder: Path, checkpoint: Path, family: str, *, seed: int = 0, targets: Any = None) -> Path:
    """Write a random adapter as PEFT does after training, made on the plain model."""
    import torch

    torch.manual_seed(seed)
    chosen = targets or TARGETS.get(family, ["q_proj", "v_proj", "down_proj"])
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=chosen, init_lora_weights=False, task_type="CAUSAL_LM")
    with minicpm_core.load(checkpoint, dtype="float32") as engine:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's own use of what transformers deprecates
            peft.get_peft_model(getattr(engine.model, "adaptable", engine.model), config).save_pretrained(
                folder, save_embedding_layers=False
            )
    return folder


@pytest.mark.parametrize("family", CONFIGS)
def test_an_adapter_changes_the_numbers_and_merging_gives_the_same(family: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", family)
    adapter = write_adapter(tmp_path / "adapter", folder, family)
    with minicpm_core.load(folder, dtype="float32") as engine:
        plain = logits_of(engine)
    with minicpm_core.load(folder, dtype="float32", adapter=adapter) as engine:
        adapted = logits_of(engine)
        assert (adapted - plain).abs().max() > 1e-3
        answer = engine.generate(
            [{"role": "user", "content": "Hello"}], sampling=minicpm_core.Sampling(max_new_tokens=3)
        )
        assert answer.usage is not None
    merged = merge_adapter(folder, adapter, tmp_path / "merged")
    with minicpm_core.load(merged, dtype="float32") as engine:
        assert engine.family.name == family
        assert (logits_of(engine) - adapted).abs().max() < 1e-4


def test_adapters_are_named_and_switched(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "minicpm")
    adapters = {
        "first": write_adapter(tmp_path / "1", folder, "minicpm", seed=1),
        "second": write_adapter(tmp_path / "2", folder, "minicpm", seed=2, targets=["k_proj"]),
    }
    expected = {}
    with minicpm_core.load(folder, dtype="float32") as engine:
        expected[None] = logits_of(engine)
    for name, adapter in adapters.items():
        with minicpm_core.load(folder, dtype="float32", adapter=adapter) as engine:
            expected[name] = logits_of(engine)
    with minicpm_core.load(folder, dtype="float32", adapter=adapters) as engine:
        assert logits_of(engine).equal(expected["first"])
        for name in ("second", None, "first", "second"):
            engine.set_adapter(name)
            assert logits_of(engine).allclose(expected[name], atol=1e-6), name
        with pytest.raises(ValueError, match="there is no adapter 'third'; loaded: first, second"):
            engine.set_adapter("third")


def test_a_model_without_adapters_has_none_to_switch_to(toy: Path) -> None:
    with minicpm_core.load(toy) as engine:
        engine.set_adapter(None)
        with pytest.raises(ValueError, match="there is no adapter 'a'; loaded: none"):
            engine.set_adapter("a")


@pytest.mark.parametrize("family", ["minicpm", "minicpm-moe", "minicpm3", "minicpm5"])
def test_adapters_lie_over_int4_too(family: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = write_family(tmp_path / "base", family)
    adapter = write_adapter(tmp_path / "adapter", folder, family)
    with minicpm_core.load(folder, dtype="float32", quantization="int4") as engine:
        plain = logits_of(engine)
    with minicpm_core.load(folder, dtype="float32", quantization="int4", adapter=adapter) as engine:
        assert (logits_of(engine) - plain).abs().max() > 1e-3
        engine.set_adapter(None)
        assert (logits_of(engine) - plain).abs().max() < 1e-5


def test_shared_engines_tell_adapters_apart(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "minicpm")
    one = write_adapter(tmp_path / "1", folder, "minicpm", seed=1)
    two = write_adapter(tmp_path / "2", folder, "minicpm", seed=2)
    first = minicpm_core.shared_engine(model=folder, adapter={"one": one, "two": two})
    assert minicpm_core.shared_engine(model=folder, adapter={"one": one, "two": two}) is first
    assert minicpm_core.shared_engine(model=folder, adapter={"two": two, "one": one}) is not first


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", write_family(tmp_path / "a", "minicpm"), "minicpm")
    deeper = write_family(tmp_path / "b", "minicpm", num_hidden_layers=3)
    wider = write_family(tmp_path / "c", "minicpm", hidden_size=128)
    other = write_family(tmp_path / "d", "minicpm3")
    for folder in (deeper, wider, other):
        with pytest.raises(ValueError, match=r"the adapter in .* does not fit this model"):
            minicpm_core.load(folder, adapter=adapter)


def test_folders_without_an_adapter_are_refused(tmp_path: Path, toy: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        minicpm_core.load(toy, adapter=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; adapter is a PEFT folder, or its hub id"):
        minicpm_core.load(toy, adapter=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"adapter name 'a\.b' is not accepted"):
        minicpm_core.load(toy, adapter={"a.b": tmp_path})
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PREFIX_TUNING"}')
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(ValueError, match="adapter of type 'PREFIX_TUNING'; only LORA is supported"):
        minicpm_core.load(toy, adapter=tmp_path)


def test_code_in_an_adapter_is_not_run(tmp_path: Path) -> None:
    import torch

    from tests.test_hostile import _Attack

    folder = write_family(tmp_path / "base", "minicpm")
    adapter = write_adapter(tmp_path / "adapter", folder, "minicpm")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"a": _Attack(tmp_path / "witness")}, adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match="does not fit this model"):
        minicpm_core.load(folder, adapter=adapter)
    assert not (tmp_path / "witness").exists()


def test_merging_into_quantised_weights_is_refused(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "base", "minicpm")
    adapter = write_adapter(tmp_path / "adapter", folder, "minicpm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"load_in_4bit": True}}))
    with pytest.raises(ValueError, match="are stored in int4; merge into the unquantised checkpoint"):
        merge_adapter(folder, adapter, tmp_path / "merged")


def test_missing_peft_names_the_extra(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").touch()
    own_import = builtins.__import__

    def without_peft(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "peft":
            raise ImportError(name)
        return own_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(ImportError, match=r'pip install "minicpm-integrations\[lora\]"'):
        minicpm_core.load(toy, adapter=tmp_path)


def test_whole_modules_beside_an_adapter_replace_the_bases(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = write_family(tmp_path / "base", "minicpm")
    adapter = write_adapter(tmp_path / "adapter", folder, "minicpm")
    embeddings = torch.randn_like(load_file(folder / "model.safetensors")["model.embed_tokens.weight"])
    name = "base_model.model.model.embed_tokens"
    saved = {
        f"{name}.modules_to_save.default.weight": embeddings,
        f"{name}.original_module.weight": torch.zeros_like(embeddings),
    }
    torch.save(saved, adapter / "vpm_resampler_embedtokens.pt")
    with minicpm_core.load(folder, dtype="float32", adapter=adapter) as engine:
        assert engine.model.get_input_embeddings().weight.equal(embeddings)
        expected = logits_of(engine)
    merged = merge_adapter(folder, adapter, tmp_path / "merged")
    with minicpm_core.load(merged, dtype="float32") as engine:
        assert (logits_of(engine) - expected).abs().max() < 1e-4
    other = write_adapter(tmp_path / "other", folder, "minicpm", seed=2)
    with pytest.raises(ValueError, match="replaces modules of the model; load that adapter alone"):
        minicpm_core.load(folder, adapter={"a": adapter, "b": other})


def write_seeing(folder: Path, version: str) -> Path:
    return write_native(folder, version) if version.startswith("minicpmv") else write_minicpmv(folder, version)


@pytest.mark.parametrize("version", ["2.0", "2.6", "4.5", "minicpmv4_6"])
@pytest.mark.parametrize("quantization", ["none", "int4"])
def test_adapters_lie_over_models_that_see(version: str, quantization: str, tmp_path: Path) -> None:
    folder = write_seeing(tmp_path / "base", version)
    targets = [r".*(llm|language_model).*\.o_proj", r".*(llm|language_model).*\.up_proj"]
    adapter = write_adapter(tmp_path / "adapter", folder, version, targets="|".join(targets))
    parts = [{"type": "image", "image": Image.new("RGB", (60, 40), "red")}, {"type": "text", "text": "what?"}]
    messages = [{"role": "user", "content": parts}]
    greedy = minicpm_core.Sampling(temperature=0, max_new_tokens=8)
    with minicpm_core.load(folder, dtype="float32", quantization=quantization) as engine:
        plain = engine.generate(messages, sampling=greedy)
    with minicpm_core.load(folder, dtype="float32", quantization=quantization, adapter=adapter) as engine:
        adapted = engine.generate(messages, sampling=greedy)
        assert adapted.content != plain.content
        engine.set_adapter(None)
        assert engine.generate(messages, sampling=greedy) == plain
    if quantization == "none":
        merged = merge_adapter(folder, adapter, tmp_path / "merged")
        with minicpm_core.load(merged, dtype="float32") as engine:
            assert engine.generate(messages, sampling=greedy).content == adapted.content


def test_a_change_of_what_the_files_hold_otherwise_is_not_merged(tmp_path: Path) -> None:
    folder = write_minicpmv(tmp_path / "base", "2.0")  # its tower is stored with query, key and value in one
    adapter = write_adapter(tmp_path / "adapter", folder, "2.0", targets=["q_proj"])
    with pytest.raises(ValueError, match="under another name"):
        merge_adapter(folder, adapter, tmp_path / "merged")
