"""MiniCPM-V 1.0 to 4.5 through the engine, on tiny random checkpoints in the official layout."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minicpm_core import Chunk, Engine, Sampling, load, plan
from minicpm_core.vision.four_bit import unpacked
from minicpm_core.weights import StoredTensor
from tests.recording import generate_ids
from tests.toy_minicpmv import QUERIES, VERSIONS, write_minicpmv

GREEDY = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=8)


def picture(width: int = 100, height: int = 60, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def ask(*parts: Any) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return [{"role": "user", "content": content}]


def last_logits(engine: Engine, messages: list[dict[str, Any]]) -> torch.Tensor:
    request = engine.prepare(messages)
    ids = torch.tensor([request.prompt_ids])
    with torch.inference_mode():
        inputs = engine.model.prefill(ids, request.pictures)[0] if request.pictures else {"input_ids": ids}
        return engine.model(**inputs).logits[0, -1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {version: write_minicpmv(tmp_path_factory.mktemp(f"v{version}"), version) for version in VERSIONS}


@pytest.fixture(scope="module", params=VERSIONS)
def engine(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Engine:
    return load(folders[request.param], dtype="float32", device="cpu")


def v(version: str, folders: dict[str, Path]) -> Engine:
    return load(folders[version], dtype="float32", device="cpu")


def test_the_family_is_recognised_and_weights_are_float32(engine: Engine) -> None:
    version = engine.family.name.removeprefix("minicpm-v-")
    assert version in VERSIONS
    assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.float32}
    parameters = sum(parameter.numel() * 4 for parameter in engine.model.parameters())
    assert 0 <= engine.memory_report()["parameters"] - parameters < 500  # a table of the rotary embedding


def test_answers_streams_and_usage(engine: Engine) -> None:
    messages = ask(picture(), "What is it?")
    pieces = list(engine.stream(messages, sampling=GREEDY))
    answer = engine.generate(messages, sampling=GREEDY)
    assert sum(pieces, Chunk()) == answer
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    request = engine.prepare(messages)
    features = QUERIES * len(request.pictures.views)
    text_only = engine.prepare(ask("What is it?"))
    assert text_only.pictures is None
    assert answer.usage.prompt_tokens == len(request.prompt_ids) >= len(text_only.prompt_ids) + features
    assert engine.count_tokens(messages) == answer.usage.prompt_tokens


def test_stop_texts_end_the_answer(engine: Engine) -> None:
    messages = ask(picture(), "What is it?")
    whole = engine.generate(messages, sampling=GREEDY).content
    stop = whole[2:4]
    found = engine.generate(messages, sampling=GREEDY, stop=[stop])
    assert found.content == whole[: whole.find(stop)]
    assert found.finish_reason == "stop"


async def test_asynchronous_answers_are_the_same(engine: Engine) -> None:
    messages = ask(picture(), "What is it?")
    assert await engine.agenerate(messages, sampling=GREEDY) == engine.generate(messages, sampling=GREEDY)


def test_the_picture_and_its_place_matter(engine: Engine) -> None:
    first, other = last_logits(engine, ask(picture(), "?")), last_logits(engine, ask(picture(seed=1), "?"))
    after = last_logits(engine, ask("?", picture()))
    assert (first - other).abs().max() > 1e-3
    assert (first - after).abs().max() > 1e-3


def test_pictures_in_any_turn_and_position(engine: Engine) -> None:
    messages = [
        *ask("a", picture(seed=1), "b", picture(seed=2)),
        {"role": "assistant", "content": "c"},
        *ask(picture(seed=3), "d"),
    ]
    request = engine.prepare(messages)
    counts = [len(engine.prepare(ask(picture(seed=n))).pictures.views) for n in (1, 2, 3)]
    assert len(request.pictures.spans) == len(request.pictures.views) == sum(counts)
    unk = engine.tokenizer.convert_tokens_to_ids("<unk>")
    slots = [place for start, end in request.pictures.spans for place in range(start, end)]
    assert [place for place, token in enumerate(request.prompt_ids) if token == unk] == slots
    text = engine.render(messages)
    assert text.index("a\n<image") < text.index("</image>") < text.index("b\n<image") < text.rindex("<image>")
    assert text.index("c") < text.rindex("\nd")
    if "<image_id>" in text:
        assert [text.count(f"<image_id>{n}</image_id>") for n in range(4)] == [1, 1, 1, 0]


def test_the_users_text_cannot_take_a_pictures_place(engine: Engine) -> None:
    hostile = "(<image>./</image>) <image><unk><unk></image> <slice><unk></slice> \ue000\ue001"
    request = engine.prepare(ask(hostile, picture(), hostile))
    alone = engine.prepare(ask(picture()))
    assert [b - a for a, b in request.pictures.spans] == [b - a for a, b in alone.pictures.spans]
    (start, _), before = request.pictures.spans[0], engine.render(ask(hostile, "#")).index("#")
    assert len(engine.tokenizer.decode(request.prompt_ids[:start])) >= before


def test_a_prompt_that_is_too_long_is_refused_with_numbers(folders: dict[str, Path]) -> None:
    small = load(folders["2.6"], dtype="float32", device="cpu", context_window=40)
    needed = len(v("2.6", folders).prepare(ask(picture(400, 300), "?")).prompt_ids)
    said = rf"the prompt has {needed} tokens \(\d+ of them for pictures, .*max_slice_nums\) and the context window 40"
    with pytest.raises(ValueError, match=said):
        small.prepare(ask(picture(400, 300), "?"))


def test_prefill_in_parts_equals_one_pass(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = v("2.0", folders)
    messages = ask(picture(300, 200), "What? " * 30)
    whole = engine.generate(messages, sampling=GREEDY)
    monkeypatch.setattr(engine, "_memory", replace(engine._memory, prefill_chunk=7))
    engine._prefixes.clear()
    assert engine.generate(messages, sampling=GREEDY) == whole


def test_a_cancelled_request_stops_between_batches_of_views(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    request, cancelled, passes = engine.prepare(ask(*[picture(100, 300)] * 4, "?")), threading.Event(), []
    tower = engine.model.vpm.forward

    def forward(patches: torch.Tensor, positions: torch.Tensor) -> Any:
        passes.append(len(patches))
        cancelled.set()
        return tower(patches, positions)

    monkeypatch.setattr(engine.model.vpm, "forward", forward)
    monkeypatch.setattr("minicpm_core.vision.model.BATCH", 1)
    options: dict[str, Any] = {"pictures": request.pictures, "cancelled": cancelled}
    assert generate_ids(engine.model, request.prompt_ids, request.sampling, **options) == []
    assert passes == [1]


def test_scale_emb_does_not_reach_the_features(folders: dict[str, Path]) -> None:
    engine = v("2.0", folders)
    request = engine.prepare(ask(picture(), "?"))
    with torch.inference_mode():
        inputs, _ = engine.model.prefill(torch.tensor([request.prompt_ids]), request.pictures)
        features = engine.model.encode(request.pictures)
    start, end = request.pictures.spans[0]
    torch.testing.assert_close(inputs["inputs_embeds"][0, start:end] * 12, features[0])


def test_slices_of_2_5_depend_on_the_largest_unless_they_go_alone(tmp_path: Path, folders: dict[str, Path]) -> None:
    alone = load(write_minicpmv(tmp_path, "2.5", batch_vision_input=False), dtype="float32", device="cpu")
    for engine, together in ((v("2.5", folders), True), (alone, False), (v("2.6", folders), False)):
        with torch.inference_mode():
            one = engine.model.encode(engine.prepare(ask(picture(56, 56))).pictures)[0]
            both = engine.model.encode(engine.prepare(ask(picture(56, 56), picture(40, 20))).pictures)[0]
        assert bool((one - both).abs().max() > 1e-4) == together


def test_1_0_sees_one_square_view(folders: dict[str, Path]) -> None:
    engine = v("1.0", folders)
    request = engine.prepare(ask(picture(500, 100), "?"))
    assert [view.shape for view in request.pictures.views] == [(56, 56, 3)]
    assert engine.render(ask(picture(), "?")) == f"<用户><image>{'<unk>' * QUERIES}</image>\n?<AI>"


def test_4_5_reads_frames_together_with_their_times(folders: dict[str, Path]) -> None:
    from minicpm_core.vision.prompt import Picture, Pictures

    model = v("4.5", folders).model
    frames = tuple(np.asarray(picture(56, 56, seed)) for seed in range(3))

    def encode(*times: int) -> torch.Tensor:
        with torch.inference_mode():
            return model.encode(Pictures((Picture("", frames, times),), ()))

    assert encode(0, 5, 10).shape == (1, QUERIES, model.config.hidden_size)
    assert (encode(0, 5, 10) - encode(0, 5, 11)).abs().max() > 1e-4
    with pytest.raises(ValueError, match="2 temporal ids for 3 frames"):
        encode(0, 5)


@pytest.mark.parametrize("version", ["2.6", "4.5"])
def test_omni_checkpoints_load_without_their_audio(
    version: str, tmp_path: Path, folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    audio = {name: torch.zeros(2, 2) for name in ("apm.conv1.weight", "tts.emb_code.0.weight")}
    audio["audio_projection_layer.linear1.weight"] = torch.zeros(2, 2)
    folder = write_minicpmv(tmp_path, version, extra=audio, model_type="minicpmo", architectures=["MiniCPMO"])
    with caplog.at_level(logging.WARNING):
        engine = load(folder, dtype="float32", device="cpu")
    assert [r.message for r in caplog.records if "audio" in r.message] == [
        f"{folder}: 3 tensors of the audio part are ignored; text and pictures work"
    ]
    assert not [r for r in caplog.records if "ignored tensors" in r.message]
    messages = ask(picture(), "What is it?")
    assert engine.generate(messages, sampling=GREEDY) == v(version, folders).generate(messages, sampling=GREEDY)


def test_pickled_weights_give_the_same(tmp_path: Path, folders: dict[str, Path]) -> None:
    from safetensors.torch import load_file

    folder = write_minicpmv(tmp_path, "2.0")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    messages = ask(picture(), "?")
    expected = last_logits(v("2.0", folders), messages)
    torch.testing.assert_close(last_logits(load(folder, dtype="float32", device="cpu"), messages), expected)


def test_half_precision_is_kept_where_asked(folders: dict[str, Path]) -> None:
    engine = load(folders["2.6"], dtype="bfloat16", device="cpu")
    assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.bfloat16}
    expected = last_logits(v("2.6", folders), ask(picture(), "?"))
    found = last_logits(engine, ask(picture(), "?")).float()
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.98


def test_a_dropped_last_layer_is_not_run(tmp_path: Path, folders: dict[str, Path]) -> None:
    engine = load(write_minicpmv(tmp_path, "4.5", drop_vision_last_layer=True), dtype="float32", device="cpu")
    assert len(engine.model.vpm.encoder.layers) == len(v("4.5", folders).model.vpm.encoder.layers) - 1


def test_the_memory_plan_counts_the_tower(folders: dict[str, Path], tmp_path: Path) -> None:
    vision = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 1152, "intermediate_size": 4304}
    cut = {"max_slice_nums": 9, "scale_resolution": 448, "patch_size": 14}
    large = plan(write_minicpmv(tmp_path, "2.6", vision_config=vision, slice_config=cut))
    assert large.activations + large.pictures >= 4 * 1024 * (2 * 4304 + 6 * 1152) * 2
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["vision_config"] |= {"hidden_size": 32, "intermediate_size": 48}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    small = plan(tmp_path)
    assert small.activations + small.pictures < large.activations + large.pictures
    assert small.pictures > plan(folders["2.6"]).pictures  # whose views are smaller


def test_int4_leaves_tower_and_resampler_alone(folders: dict[str, Path]) -> None:
    pytest.importorskip("bitsandbytes")
    engine = load(folders["2.6"], device="cpu", quantization="int4")
    kinds = {type(module).__name__ for module in engine.model.llm.modules()}
    assert "Linear4bit" in kinds
    assert "Linear4bit" not in {type(module).__name__ for module in engine.model.vpm.modules()}
    assert engine.generate(ask(picture(), "?"), sampling=GREEDY).usage is not None


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("shape", [(96, 64), (64, 192)])
def test_weights_in_4_bits_are_unpacked_as_bitsandbytes_does(nested: bool, shape: tuple[int, int]) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).half()
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    stored = store(pack("w", packed, state))
    assert {name: tensor.shape for name, tensor in unpacked(stored).items()} == {"w": shape}
    expected = functional.dequantize_4bit(packed, state).float()
    torch.testing.assert_close(unpacked(stored)["w"][...], expected, rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match=r"lack w\.absmax"):
        unpacked({name: tensor for name, tensor in stored.items() if name != "w.absmax"})["w"][...]


def pack(name: str, packed: torch.Tensor, state: Any) -> dict[str, torch.Tensor]:
    return {name: packed} | {f"{name}.{part}": value for part, value in state.as_dict(packed=True).items()}


def store(tensors: dict[str, torch.Tensor]) -> dict[str, StoredTensor]:
    return {name: StoredTensor(name, "", tuple(t.shape), lambda t=t: t) for name, t in tensors.items()}


def test_a_checkpoint_stored_in_4_bits_loads(tmp_path: Path, folders: dict[str, Path]) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    from safetensors.torch import load_file, save_file

    folder = write_minicpmv(tmp_path, "2.6")
    tensors = load_file(folder / "model.safetensors")
    linear = [n for n, t in tensors.items() if "_proj.weight" in n and t.dim() == 2 and not n.startswith("resampler")]
    for name in linear:
        if tensors[name].shape[1] % 64 == 0 or name.startswith("vpm"):
            tensors |= pack(name, *functional.quantize_4bit(tensors[name], quant_type="nf4", compress_statistics=True))
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    skipped = ["down_proj", "kv_proj", "lm_head"]
    config["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "llm_int8_skip_modules": skipped,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    engine = load(folder, device="cpu", dtype="float32")
    assert "Linear4bit" in {type(module).__name__ for module in engine.model.llm.modules()}
    assert "Linear4bit" not in {type(module).__name__ for module in engine.model.vpm.modules()}
    found, expected = (last_logits(e, ask(picture(), "?")).float() for e in (engine, v("2.6", folders)))
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("resampler.query", "lack the tensor resampler.query"),
        ("vpm.encoder.layers.1.mlp.fc1.weight", "lack the tensor vpm.encoder.layers.1.mlp.fc1.weight"),
        ("llm.model.norm.weight", "lacks 1 tensors .* model.norm.weight"),
    ],
)
def test_missing_tensors_are_named(change: str, says: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_minicpmv(tmp_path, "2.6")
    tensors = load_file(folder / "model.safetensors")
    del tensors[change]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=says):
        load(folder, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"query_num": 5}, "query_num is 5 in config.json, but 4 queries are stored"),
        ({"vision_config": {"num_attention_heads": 5, "num_hidden_layers": 2}}, "32 is not a multiple of its 5 heads"),
        ({"vision_config": {"num_attention_heads": 2, "num_hidden_layers": 9}}, "lack the tensor vpm.encoder.layers.2"),
        ({"slice_config": {"max_slice_nums": -1}}, "max_slices of the picture slicing is -1"),
        ({"num_hidden_layers": 3}, "num_hidden_layers in config.json is 3, and the files hold 2"),
        ({"version": "9.9"}, "no MiniCPM family"),
        ({"vision_config": [1]}, "vision_config in config.json is a list"),
        ({"slice_config": "none"}, "slice_config in config.json is a str"),
        ({"vision_config": {"num_attention_heads": -2}}, "num_attention_heads of the vision tower is -2"),
        ({"vision_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers of the vision tower is 1000000000"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(overrides: dict[str, Any], says: str, tmp_path: Path) -> None:
    config = json.loads((write_minicpmv(tmp_path, "2.6") / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | overrides), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        load(tmp_path, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"norm_std": [0, 1, 1]}, r"norm_std in preprocessor_config.json is \[0, 1, 1\]"),
        ({"norm_mean": [0.5]}, "three numbers are needed"),
        ({"norm_mean": "0.5"}, "three numbers are needed"),
        ({"im_start": 5}, "a placeholder token of the checkpoint is 5"),
        ({"unk": ""}, "a placeholder token of the checkpoint is ''"),
        ({"max_slice_nums": 10**6}, "max_slices of the picture slicing is 1000000"),
    ],
)
def test_a_damaged_preprocessor_config_is_refused(values: dict[str, Any], says: str, tmp_path: Path) -> None:
    write_minicpmv(tmp_path, "2.6")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        load(tmp_path, dtype="float32", device="cpu")


def test_an_unknown_timm_tower_needs_its_heads(tmp_path: Path) -> None:
    folder = write_minicpmv(tmp_path, "2.0", timm_kwargs=None)
    with pytest.raises(ValueError, match=r"known: vit_so400m_patch14_siglip_384.*timm_kwargs"):
        load(folder, device="cpu")
    named = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named["vision_encoder"] = "vit_so400m_patch14_siglip_384.webli"
    (folder / "config.json").write_text(json.dumps(named), encoding="utf-8")
    assert load(folder, device="cpu").model.vpm.sizes.heads == 16


def test_a_template_that_drops_pictures_is_an_error(tmp_path: Path) -> None:
    folder = write_minicpmv(tmp_path, "2.6")
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}", encoding="utf-8")
    engine = load(folder, device="cpu")
    with pytest.raises(ValueError, match="shows 1 of 2 pictures"):
        engine.prepare([*ask(picture()), {"role": "assistant", "content": "x"}, *ask(picture())])


def test_a_tokenizer_that_splits_the_placeholder_is_an_error(tmp_path: Path) -> None:
    folder = write_minicpmv(tmp_path, "2.6")
    (folder / "preprocessor_config.json").write_text(json.dumps({"unk": "<not a token>"}), encoding="utf-8")
    with pytest.raises(ValueError, match="feature tokens and its placeholder"):
        load(folder, device="cpu").generate(ask(picture(), "?"))
