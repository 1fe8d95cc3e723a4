"""Frames of a video in a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minicpm_core import Engine, PictureSettings, Sampling, load
from minicpm_core.checkpoints import open_checkpoint
from minicpm_core.vision.native import load_pictures
from minicpm_core.vision.prompt import Picture, Pictures
from minicpm_core.vision.video import read_video
from tests.toy_minicpmv import QUERIES, write_minicpmv
from tests.toy_vision import write_native

GREEDY = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=6)
SLOTS = "<unk>" * QUERIES


def frames(count: int, width: int = 200, height: int = 120) -> list[Image.Image]:
    random = np.random.default_rng(1)
    small = random.integers(0, 256, (count, 3, 4, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC) for one in small]


def ask(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [p if isinstance(p, dict) else {"type": "text", "text": p} for p in parts]}]


def video(pictures: list[Any], **more: Any) -> dict[str, Any]:
    return {"type": "video", "video": pictures, **more}


@pytest.fixture(scope="module")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(write_minicpmv(tmp_path_factory.mktemp("v45"), "4.5"), dtype="float32", device="cpu")


def test_frames_are_uncut_unnumbered_and_in_order(temporal: Engine) -> None:
    picture = {"type": "image", "image": frames(1, 40, 40)[0]}
    text = temporal.render(ask(video(frames(3)), "then", picture))
    frame = f"<image>{SLOTS}</image>"
    assert f"user\n{frame}\n{frame}\n{frame}\nthen\n<image_id>0</image_id>{frame}<|im_end|>" in text
    views = temporal.prepare(ask(video(frames(3)))).pictures.views
    assert [view.shape for view in views] == [(42, 70, 3)] * 3


def test_frames_read_together_share_a_placeholder_and_know_their_times(temporal: Engine) -> None:
    request = temporal.prepare(ask(video(frames(7), fps=2, together=3), "?"))
    assert [picture.frames for picture in request.pictures.pictures] == [(0, 5, 10), (15, 20, 25), (30,)]
    assert len(request.pictures.spans) == 3
    assert temporal.render(ask(video(frames(7), together=3))).count(SLOTS) == 3
    views = request.pictures.views
    expected = Pictures(tuple(Picture("", views[a:b], t) for a, b, t in ((0, 3, (0, 5, 10)), (3, 6, (15, 20, 25)))), ())
    with torch.inference_mode():
        inputs, _ = temporal.model.prefill(torch.tensor([request.prompt_ids]), request.pictures)
        features = temporal.model.encode(expected)
    for (start, end), tokens in zip(request.pictures.spans, features, strict=False):
        torch.testing.assert_close(inputs["inputs_embeds"][0, start:end], tokens, rtol=0, atol=1e-5)
    assert temporal.generate(ask(video(frames(7), together=3), "?"), sampling=GREEDY).usage is not None


def test_pictures_beside_a_video_keep_their_features(temporal: Engine) -> None:
    picture = {"type": "image", "image": frames(1)[0]}
    alone = temporal.prepare(ask(picture)).pictures
    beside = temporal.prepare(ask(video(frames(2), times=[0.5, 1.26]), picture)).pictures
    assert [p.frames for p in beside.pictures] == [(5,), (13,), None]
    with torch.inference_mode():
        both, one = temporal.model.encode(beside), temporal.model.encode(alone)
    torch.testing.assert_close(both[2:], one, rtol=0, atol=1e-5)


def test_other_families_read_frames_one_by_one(tmp_path: Path) -> None:
    engine = load(write_minicpmv(tmp_path, "2.6"), dtype="float32", device="cpu")
    request = engine.prepare(ask(video(frames(3)), "?"))
    assert [picture.frames for picture in request.pictures.pictures] == [None] * 3
    assert engine.generate(ask(video(frames(3)), "?"), sampling=GREEDY).usage is not None
    with pytest.raises(ValueError, match="together is 2, but this model reads frames one by one"):
        engine.prepare(ask(video(frames(2), together=2)))


def test_only_families_that_were_shown_stacked_frames_take_them(tmp_path: Path) -> None:
    older = load(write_minicpmv(tmp_path / "older", "4.5"), dtype="float32", device="cpu")
    with pytest.raises(ValueError, match=r"no stack_frames; leave it out. They have: .*max_num_frames"):
        older.prepare(ask("?"), pictures=PictureSettings(stack_frames=2))
    with pytest.raises(ValueError, match="stack_frames is 11; accepted: 1 to 10"):
        PictureSettings(stack_frames=11)
    folder = write_native(tmp_path / "newer", "minicpmv4_7", weights=False)
    checkpoint = open_checkpoint(folder)
    assert load_pictures(checkpoint).defaults == PictureSettings(6, "16x", True, 128, 1)
    (folder / "video_preprocessor_config.json").write_text('{"max_num_frames": 7, "stack_frames": 3}')
    assert load_pictures(checkpoint).defaults == PictureSettings(6, "16x", True, 7, 3)
    (folder / "video_preprocessor_config.json").write_text('{"stack_frames": "3"}')
    with pytest.raises(ValueError, match=r"stack_frames in video_preprocessor_config.json is '3'; a whole number"):
        load_pictures(checkpoint)


@pytest.mark.parametrize("version", ["1.0", "2.0", "2.5"])
def test_families_that_know_no_videos_refuse_them(version: str, tmp_path: Path) -> None:
    engine = load(write_minicpmv(tmp_path, version), dtype="float32", device="cpu")
    with pytest.raises(ValueError, match="trained on pictures and not on videos; give the frames as pictures"):
        engine.prepare(ask(video(frames(3)), "?"))
    with pytest.raises(ValueError, match="no max_num_frames"):
        engine.prepare(ask("?"), pictures=PictureSettings(max_num_frames=3))
    shown = [{"type": "image", "image": frame} for frame in frames(3)]
    assert len(engine.prepare(ask(*shown)).pictures.pictures) == 3


@pytest.mark.parametrize("model_type", ["minicpmv4_6", "minicpmv4_7"])
def test_frames_of_the_newer_families_stand_side_by_side(model_type: str, tmp_path: Path) -> None:
    engine = load(write_native(tmp_path, model_type), dtype="float32", device="cpu")
    text = engine.render(ask(video(frames(2)), "?"))
    assert text.count("</image><image>") == 1
    assert "<image_id>" not in text
    assert engine.generate(ask(video(frames(2)), "?"), sampling=GREEDY).usage is not None


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"type": "video"}, "a video part needs exactly one of video, video_url, url"),
        ({"type": "video", "video": 3}, "a video is given as a int; accepted: a file's path"),
        ({"type": "video", "video": []}, "0 frames"),
        (video([b""] * 257), "257 frames"),
        (video([b""], together=0), "together is 0; accepted: 1 to 6"),
        (video([Image.new("RGB", (2, 2))], fps=0), "fps is 0"),
        (video([Image.new("RGB", (2, 2))], times=[1, 2]), "one second for each of 1 frames"),
        (video([Image.new("RGB", (2, 2))], times=[-1]), "one second for each of 1 frames"),
        (video([b"no picture"]), "no picture can be read"),
    ],
)
def test_what_is_no_video_is_refused(part: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        read_video(part)
