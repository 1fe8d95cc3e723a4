"""A vision part (mmproj) beside a GGUF file: pictures are read as by the same checkpoint in transformers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minicpm_core import Engine, Sampling, load
from minicpm_core.gguf.checkpoint import open_gguf, read_embedding_scale
from minicpm_core.gguf.engine import plan_gguf
from minicpm_core.gguf.header import read_header
from minicpm_core.gguf.mmproj import find_projector, open_projector, read_version
from minicpm_core.gguf.model import LlamaCppModel
from minicpm_core.vision.prompt import Pictures
from tests.toy_gguf import convert, write_gguf, write_mmproj
from tests.toy_minicpmv import HIDDEN, write_minicpmv

GREEDY = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=12)


def _picture(seed: int, width: int = 100, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def _talk(*pictures: Image.Image) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*parts, "The lamp <image><unk></image>"]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_minicpmv(tmp_path_factory.mktemp("seeing") / "toy", "4.0", rope_theta=1e4)
    convert(folder, folder.parent / "model.gguf", **{"llama.attention.head_count_kv": 2})
    write_mmproj(folder, folder.parent / "mmproj-model-f32.gguf")
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> Iterator[Engine]:
    with load(folder, device="cpu", dtype="float32") as engine:
        yield engine


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    pytest.importorskip("llama_cpp", reason="pip install minicpm-integrations[llama-cpp]")
    with load(folder.parent / "model.gguf", device="cpu") as engine:
        yield engine


@pytest.mark.parametrize("up", ["ffn_down", "ffn_up"])
def test_the_tensors_are_the_checkpoints(folder: Path, tmp_path: Path, up: str) -> None:
    from safetensors.torch import load_file

    stored = {name: value for name, value in load_file(folder / "model.safetensors").items() if name[:4] != "llm."}
    tensors = open_projector(read_header(write_mmproj(folder, tmp_path / "mmproj.gguf", up=up)))
    assert set(tensors) == set(stored)
    for name, value in stored.items():
        assert tensors[name].shape == tuple(value.shape), name
        assert tensors[name][...].equal(value.float()), name


def test_the_part_beside_a_file_makes_it_see(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_gguf(folder.parent / "model.gguf")
    assert checkpoint.family.name == "minicpm-v-4.0"  # the file itself tells of a Llama with ChatML
    assert checkpoint.projector is not None
    assert checkpoint.config["query_num"] == 4
    alone = convert(folder, tmp_path / "model.gguf", **{"general.name": "MiniCPM-V 4.0"})
    assert open_gguf(alone).family.vision is None
    blind, seeing = plan_gguf(open_gguf(alone), 200, None), plan_gguf(checkpoint, 200, None)
    values = sum(int(np.prod(shape)) for shape in checkpoint.projector.tensors.values())
    assert (seeing.other_weights, blind.other_weights) == (4 * values, 0)
    assert seeing.pictures > seeing.picture_cache > 0 == blind.pictures == blind.picture_cache


def test_the_part_that_fits_is_taken(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = convert(folder, tmp_path / "model.gguf")
    assert find_projector(read_header(model)) is None
    write_mmproj(folder, tmp_path / "mmproj-small.gguf")
    large = write_mmproj(folder, tmp_path / "model-mmproj.gguf", **{"general.description": "more"})
    write_gguf(tmp_path / "mmproj-4_6.gguf", {"general.architecture": "clip", "clip.projector_type": "minicpmv4_6"})
    (tmp_path / "mmproj-cut.gguf").write_bytes(b"GG")
    with caplog.at_level(logging.WARNING):
        found = find_projector(read_header(model))
    assert found is not None
    assert found.path == large
    assert "mmproj-4_6.gguf is not used" in caplog.text
    assert "accepted: resampler, version 2, 3, 4, 5, 6, 100045" in caplog.text
    assert "mmproj-cut.gguf is not used" in caplog.text
    for other in ({"llama.embedding_length": 2 * HIDDEN}, {"general.architecture": "minicpm3"}):
        assert find_projector(read_header(convert(folder, model, **other))) is None


def test_damage_is_told(folder: Path, tmp_path: Path) -> None:
    path = write_mmproj(folder, tmp_path / "mmproj.gguf", version=99)
    with pytest.raises(ValueError, match="projector 'resampler' of version 99"):
        read_version(read_header(path))
    header = read_header(write_mmproj(folder, tmp_path / "cut.gguf"))
    header.path.write_bytes(header.path.read_bytes()[:-5000])
    last = list(open_projector(header).values())[-1]
    with pytest.raises(ValueError, match="ends within the tensor"):
        last[...]
    quantised = type(header)(header.path, header.metadata, header.tensors, {name: (8, 0) for name in header.places})
    with pytest.raises(ValueError, match="is quantised; use the mmproj file in F16, BF16 or F32"):
        open_projector(quantised)["vpm.post_layernorm.weight"][...]


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"general.architecture": "llama"}, 1.0),
        ({"general.architecture": "minicpm"}, 12.0),
        ({"general.architecture": "minicpm", "minicpm.embedding_scale": 1.0}, 1.0),
    ],
)
def test_features_are_divided_by_what_llama_cpp_multiplies_with(
    tmp_path: Path, fields: dict[str, Any], scale: float
) -> None:
    assert read_embedding_scale(read_header(write_gguf(tmp_path / "model.gguf", fields))) == scale


def test_the_scale_of_embeddings_leaves_pictures_as_they_are() -> None:
    class Sight:
        joint = False

        def encode(self, pictures: Any, cancelled: Any) -> Any:
            return torch.full((1, 2, 8), 6.0)

    model = LlamaCppModel.__new__(LlamaCppModel)
    model.sight, model.feature_scale, model._embedding_width = Sight(), 12.0, 8
    inputs, skipped = model.prefill(torch.zeros(1, 5, dtype=torch.long), Pictures((), ((1, 3),)))
    assert inputs["features"][0, :, 0].tolist() == [0, 0.5, 0.5, 0, 0]
    assert inputs["seen"][0].tolist() == [False, True, True, False, False]
    assert skipped == 0
    assert model.place(torch.zeros(1, 5, dtype=torch.long), Pictures((), ())) == ({}, 0), "places are those of tokens"
    with pytest.raises(ValueError, match="2 feature tokens and its placeholder 3 token ids"):
        model.prefill(torch.zeros(1, 5, dtype=torch.long), Pictures((), ((1, 4),)))


def test_pictures_are_read_as_in_transformers(engine: Any, reference: Engine) -> None:
    talk = _talk(_picture(1), _picture(2, 40, 90))
    request, expected = engine.prepare(talk), reference.prepare(talk)
    assert request.prompt_ids == expected.prompt_ids
    assert request.pictures.spans == expected.pictures.spans
    answer, other = engine.generate(talk, sampling=GREEDY), reference.generate(talk, sampling=GREEDY)
    assert answer.content == other.content
    assert answer.usage.prompt_tokens == other.usage.prompt_tokens
    blank = engine.generate(_talk(Image.new("RGB", (100, 60)), Image.new("RGB", (40, 90))), sampling=GREEDY)
    assert blank.content != answer.content


def test_what_prompts_with_pictures_share_is_not_read_again(engine: Any) -> None:
    talk = _talk(_picture(3))
    first = engine.generate(talk, sampling=GREEDY)
    longer = [*talk, {"role": "assistant", "content": "fox"}, {"role": "user", "content": "The city?"}]
    again = engine.generate(longer, sampling=GREEDY)
    assert first.usage.prompt_tokens - 3 <= again.usage.cached_tokens < again.usage.prompt_tokens
    engine._prefixes.clear()
    engine.model.clear()
    assert engine.generate(longer, sampling=GREEDY).content == again.content
    other = engine.generate(_talk(_picture(4)), sampling=GREEDY)
    assert other.usage.cached_tokens < 10


def test_a_picture_that_was_seen_is_not_run_again(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    encode = engine.model.sight.encode

    def count(pictures: Pictures, cancelled: Any = None) -> Any:
        counts.append(len(pictures.views))
        return encode(pictures, cancelled)

    monkeypatch.setattr(engine.model.sight, "encode", count)
    talk = _talk(_picture(7))
    first = engine.generate([{"role": "system", "content": "Be brief."}, *talk], sampling=GREEDY)
    second = engine.generate([{"role": "system", "content": "Say more."}, *talk], sampling=GREEDY)
    assert second.usage.cached_tokens < first.usage.prompt_tokens // 2
    assert len(counts) == 1
    engine._features.clear()
    engine._prefixes.clear()
    again = engine.generate([{"role": "system", "content": "Say more."}, *talk], sampling=GREEDY)
    assert (len(counts), again.content) == (2, second.content)


def test_text_alone_is_answered_as_before(engine: Any, reference: Engine) -> None:
    talk = [{"role": "user", "content": "The lamp"}]
    assert engine.generate(talk, sampling=GREEDY).content == reference.generate(talk, sampling=GREEDY).content
