"""What a call may change about pictures: how they are cut, how many tokens they become, and that all of it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minicpm_core import Engine, PictureSettings, Sampling, load
from tests.toy import write_llama
from tests.toy_minicpmv import QUERIES, VERSIONS, write_minicpmv
from tests.toy_vision import native as parameter
from tests.toy_vision import write_native

GREEDY = Sampling(temperature=0, max_new_tokens=6)
PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (300, 400, 3), dtype=np.uint8))


def ask(*pictures: Any) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    folder = tmp_path_factory.mktemp("older")
    return {v: load(write_minicpmv(folder / v, v), dtype="float32", device="cpu") for v in VERSIONS}


@pytest.fixture(scope="module", params=["minicpmv4_6", "minicpmv4_7", parameter("minicpm_ocr")])
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(write_native(tmp_path_factory.mktemp("native"), request.param), dtype="float32", device="cpu")


def count_slots(engine: Engine, **settings: Any) -> int:
    request = engine.prepare(ask(PICTURE), pictures=PictureSettings(**settings))
    assert request.pictures is not None
    return sum(end - start for start, end in request.pictures.spans)


@pytest.mark.parametrize("version", [v for v in VERSIONS if v != "1.0"])
def test_fewer_slices_are_fewer_tokens(version: str, older: dict[str, Engine]) -> None:
    engine = older[version]
    assert [count_slots(engine, max_slice_nums=n) // QUERIES for n in (1, 2, 6)] == [1, 3, 7]
    assert count_slots(engine) // QUERIES == 7, "the checkpoint's own number"
    assert count_slots(engine, max_slice_nums=9) // QUERIES == 10, "more than its own"


def test_the_count_is_that_of_the_answer(native: Engine) -> None:
    for settings in (PictureSettings(), PictureSettings(max_slice_nums=1), PictureSettings(use_image_id=False)):
        answer = native.generate(ask(PICTURE), sampling=GREEDY, pictures=settings)
        assert answer.usage is not None
        assert native.count_tokens(ask(PICTURE), pictures=settings) == answer.usage.prompt_tokens


def test_4x_takes_about_four_times_the_tokens_and_other_features(native: Engine) -> None:
    finer, coarser = (count_slots(native, downsample_mode=mode) for mode in ("4x", "16x"))
    assert 3.5 < finer / coarser < 4.5  # sides are rounded to squares of two or of four patches
    own = native.model.model.config.downsample_mode
    assert count_slots(native) == count_slots(native, downsample_mode=own)
    for mode in ("4x", "16x"):  # one after the other, so that nothing of the one is left for the other
        settings = PictureSettings(downsample_mode=mode)
        request = native.prepare(ask(PICTURE), pictures=settings)
        with torch.inference_mode():
            ids = torch.tensor([request.prompt_ids])
            inputs, _ = native.model.prefill(ids, request.pictures)
            views = request.pictures.views
            strips = torch.from_numpy(np.concatenate([native.model._strip(view) for view in views], axis=-1))[None]
            sizes = torch.tensor([(view.shape[0] // 14, view.shape[1] // 14) for view in views])
            expected = native.model.model.get_image_features(strips, sizes, downsample_mode=mode).pooler_output
        for (start, end), tokens in zip(request.pictures.spans, expected, strict=True):
            torch.testing.assert_close(inputs["inputs_embeds"][0, start:end], tokens, rtol=0, atol=1e-5)
        assert native.generate(ask(PICTURE), sampling=GREEDY, pictures=settings).usage is not None


def test_numbers_of_pictures_can_be_left_out(native: Engine) -> None:
    assert "<image_id>0</image_id>" in native.render(ask(PICTURE))
    assert "<image_id>" not in native.render(ask(PICTURE), pictures=PictureSettings(use_image_id=False))


@pytest.mark.parametrize(
    ("version", "settings", "says"),
    [
        ("2.6", {"downsample_mode": "4x"}, "no downsample_mode; leave it out. They have: max_slice_nums, use_image_id"),
        ("2.5", {"use_image_id": True}, "no use_image_id"),
        ("1.0", {"max_slice_nums": 2, "use_image_id": True}, "no max_slice_nums, use_image_id"),
    ],
)
def test_what_a_family_does_not_have_is_refused(
    version: str, settings: dict[str, Any], says: str, older: dict[str, Engine]
) -> None:
    for call in (older[version].prepare, older[version].count_tokens, older[version].render):
        with pytest.raises(ValueError, match=says):
            call(ask(PICTURE), pictures=PictureSettings(**settings))


def test_a_text_model_refuses_settings_of_pictures(tmp_path: Path) -> None:
    engine = load(write_llama(tmp_path), device="cpu")
    hello = [{"role": "user", "content": "Hello"}]
    with pytest.raises(ValueError, match="max_slice_nums: this model reads text only"):
        engine.prepare(hello, pictures=PictureSettings(max_slice_nums=1))
    assert engine.prepare(hello, pictures=PictureSettings()).prompt_ids == engine.prepare(hello).prompt_ids


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_slice_nums": 0}, "max_slice_nums is 0; accepted: 1 to 256"),
        ({"max_slice_nums": True}, "max_slice_nums is True"),
        ({"max_num_frames": 257}, "max_num_frames is 257; accepted: 1 to 256"),
        ({"downsample_mode": "8x"}, "downsample_mode is '8x'; accepted: 16x, 4x"),
        ({"use_image_id": "no"}, "use_image_id is 'no'; accepted: True, False"),
    ],
)
def test_values_that_are_not_accepted(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PictureSettings(**settings)


def test_a_shared_prefix_ends_where_the_mode_changes(tmp_path: Path) -> None:
    engine = load(write_native(tmp_path, "minicpmv4_6"), dtype="float32", device="cpu")
    alone = {
        m: engine.generate(ask(PICTURE), sampling=GREEDY, pictures=PictureSettings(downsample_mode=m)) for m in ("4x",)
    }
    engine.close()
    engine = load(tmp_path, dtype="float32", device="cpu")
    engine.generate(ask(PICTURE), sampling=GREEDY, pictures=PictureSettings(downsample_mode="16x"))
    after = engine.generate(ask(PICTURE), sampling=GREEDY, pictures=PictureSettings(downsample_mode="4x"))
    assert after.content == alone["4x"].content
