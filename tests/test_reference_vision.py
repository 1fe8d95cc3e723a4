"""MiniCPM-V checkpoints in the official layouts against what the official code computes on them, in float32."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minicpm_core import Engine, Sampling, load
from minicpm_core.answers import Request
from minicpm_core.decoding import TokenDecoder
from minicpm_core.vision.prompt import Picture, Pictures
from tests.recording import generate_ids

REFERENCE = Path(os.environ.get("MINICPM_REFERENCE_DIR", Path(__file__).parents[2] / "shared" / "reference"))
FOLDERS = sorted(path.parent for path in REFERENCE.glob("minicpmv*/cases.json"))
if not FOLDERS:
    pytest.skip(f"no reference checkpoints of MiniCPM-V in {REFERENCE}", allow_module_level=True)

TOLERANCE = 1e-4
"""Largest absolute difference of resampler outputs and logits; the measured ones are below 3e-5."""
GREEDY = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=24)
MARK = "(<image>./</image>)"


@lru_cache(maxsize=1)
def load_engine(folder: Path) -> Engine:
    return load(folder, dtype="float32", device="cpu")


@dataclass(frozen=True)
class Case:
    folder: Path
    number: int

    @cached_property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "cases.json").read_text(encoding="utf-8"))[self.number])

    @cached_property
    def arrays(self) -> dict[str, Any]:
        with np.load(self.folder / "reference.npz") as stored:
            ends = f"_{self.number}"
            return {name: stored[name] for name in stored.files if name.endswith(ends) or f"{ends}_" in name}

    def array(self, name: str) -> Any:
        return self.arrays[f"{name}_{self.number}"]

    @property
    def engine(self) -> Engine:
        return load_engine(self.folder)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The case's messages with picture parts in place of the official marks."""
        pictures = iter([self.folder / name for name in self.facts["images"]])
        messages = [dict(message) for message in self.facts["messages"]]
        if MARK not in "".join(message["content"] for message in messages):  # V-2.0 takes the picture apart
            first = next(message for message in messages if message["role"] == "user")
            first["content"] = f"{MARK}\n{first['content']}"
        for message in messages:
            lines = message["content"].split("\n")
            message["content"] = [
                {"type": "image", "image": next(pictures)} if line == MARK else {"type": "text", "text": line}
                for line in lines
            ]
        return messages

    @cached_property
    def request(self) -> Request:
        return self.engine.prepare(self.messages, sampling=GREEDY)


def _cases() -> list[Any]:
    return [
        pytest.param(Case(folder, number), id=f"{folder.name}-{number}")
        for folder in FOLDERS
        for number in range(len(json.loads((folder / "cases.json").read_text(encoding="utf-8"))))
    ]


@pytest.fixture(params=_cases())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_reference_pictures_are_cut_to_the_same_pixels(case: Case) -> None:
    views = case.request.pictures.views
    sizes = [[view.shape[1], view.shape[0]] for view in views]
    assert sizes == [list(size) for size in case.facts["slice_sizes_wh"]]
    for place, view in enumerate(views):
        np.testing.assert_array_equal(view, case.arrays[f"slice_{case.number}_{place}_u8"])


def test_reference_pixel_values_are_bit_for_bit_equal(case: Case) -> None:
    model, patch = case.engine.model, case.engine.model.vpm.sizes.patch
    for place, view in enumerate(case.request.pictures.views):
        patches, grid = model._patches(view)
        assert list(grid) == list(case.array("tgt_sizes")[place])
        tiles = patches.view(*grid, 3, patch, patch)
        shape = case.facts["pixel_values_shapes"][place]
        if shape[1] == patch:  # from V-2.5 on, patches stand in one row
            pixels = tiles.permute(2, 3, 0, 1, 4).reshape(shape)
        else:
            pixels = tiles.permute(2, 0, 3, 1, 4).reshape(shape)
        digest = hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()
        assert digest == case.facts["pixel_values_sha256"][place]


def test_reference_grids(case: Case) -> None:
    from minicpm_core.vision.slicing import choose_grid

    found = [choose_grid(tuple(size), case.engine._prompts.reader.rule) for size in case.facts["sizes"]]
    grid = case.facts["grid"]
    expected = [grid] if len(found) == 1 else grid
    assert [list(cells) if cells else None for cells in found] == expected


def test_reference_prompt_text_and_ids(case: Case) -> None:
    assert case.engine.render(case.messages) == case.facts["final_text"]
    assert list(case.request.prompt_ids) == case.array("input_ids").tolist()
    assert [list(span) for span in case.request.pictures.spans] == case.array("image_bound").tolist()


def test_reference_resampler_output(case: Case) -> None:
    with torch.inference_mode():
        out = case.engine.model.encode(case.request.pictures)
    np.testing.assert_allclose(out.numpy(), case.array("resampler_out"), rtol=0, atol=TOLERANCE)


def test_reference_logits(case: Case) -> None:
    model = case.engine.model
    ids = torch.tensor([case.request.prompt_ids])
    with torch.inference_mode():
        inputs, _ = model.prefill(ids, case.request.pictures)
        logits = model(**inputs).logits[0]
    np.testing.assert_allclose(logits[:8].numpy(), case.array("logits_first8"), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits[-64:].numpy(), case.array("logits_last64"), rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(logits.argmax(-1).numpy(), case.array("logits_argmax"))
    np.testing.assert_allclose(logits.logsumexp(-1).numpy(), case.array("logits_lse"), rtol=0, atol=TOLERANCE)


def test_reference_greedy_tokens(case: Case) -> None:
    request = case.request
    tokens = generate_ids(case.engine.model, request.prompt_ids, request.sampling, pictures=request.pictures)
    assert tokens == case.array("gen_ids").tolist()


def test_reference_answer_through_the_public_path(case: Case) -> None:
    engine = case.engine
    answer = engine.generate(case.messages, sampling=GREEDY)
    tokens = case.array("gen_ids").tolist()
    stop = next((place for place, token in enumerate(tokens) if token in engine._vocabulary.stop_ids), None)
    shown = tokens if stop is None else tokens[:stop]
    assert (answer.reasoning + answer.content).strip() == _stream_text(engine, shown).strip()
    assert answer.finish_reason == ("length" if stop is None else "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == case.facts["n_ids"]
    assert answer.usage.completion_tokens == (len(tokens) if stop is None else stop + 1)


def _stream_text(engine: Engine, tokens: list[int]) -> str:
    """Return what the tokens are in a stream; random ones are seldom whole characters, so that a whole text differs."""
    decoder = TokenDecoder(engine.tokenizer, engine._vocabulary.hidden_ids)
    return "".join(decoder.push(token) for token in tokens) + decoder.flush()


@pytest.mark.parametrize("folder", [f for f in FOLDERS if (f / "temporal.npz").is_file()], ids=lambda f: f.name)
def test_reference_frames_are_read_together(folder: Path) -> None:
    facts = json.loads((folder / "temporal.json").read_text(encoding="utf-8"))
    with np.load(folder / "temporal.npz") as stored:
        frames, grouped, plain = (stored[n] for n in ("frames_u8", "resampler_out_grouped", "resampler_out_plain"))
    model = load_engine(folder).model
    groups, start = [], 0
    for times in facts["temporal_ids"]:
        groups.append(Picture("", tuple(frames[start : start + len(times)]), tuple(times)))
        start += len(times)
    with torch.inference_mode():
        together = model.encode(Pictures(tuple(groups), ()))
        apart = model.encode(Pictures((Picture("", tuple(frames)),), ()))
    np.testing.assert_allclose(together.numpy(), grouped, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(apart.numpy(), plain, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_reference_picture_files_are_read_unchanged(folder: Path) -> None:
    from minicpm_core.images import read_image

    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.asarray(read_image(file)), np.asarray(image.convert("RGB")))
