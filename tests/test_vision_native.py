"""MiniCPM-V 4.6, 4.7 and OCR through the engine, against transformers' own image processor and generate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from minicpm_core import Engine, Sampling, load
from minicpm_core.vision.configs import to_native
from minicpm_core.vision.prompt import Pictures
from tests.recording import generate_ids
from tests.toy_vision import CLASSES, TOKENS, native, write_native

GREEDY = Sampling(temperature=0, max_new_tokens=12)


@pytest.fixture(scope="module", params=[native(kind) for kind in sorted(CLASSES)])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = write_native(tmp_path_factory.mktemp(request.param), request.param)
    return load(folder, dtype="float32", device="cpu")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def ask(*parts: Any) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return [{"role": "user", "content": content}]


def process(engine: Engine, images: list[Image.Image]) -> dict[str, Any]:
    """Return what the image processor of transformers makes of the pictures."""
    from transformers import MiniCPMV4_6ImageProcessorPil

    mode = engine.model.model.config.downsample_mode
    return dict(
        MiniCPMV4_6ImageProcessorPil(scale_resolution=112, max_slice_nums=6)(
            images, downsample_mode=mode, return_tensors="pt"
        )
    )


def generate_natively(engine: Engine, prompt_ids: tuple[int, ...], processed: dict[str, Any]) -> list[int]:
    model = engine.model.model
    ids = torch.tensor([prompt_ids])
    inputs = {name: processed[name] for name in ("pixel_values", "target_sizes")}
    if hasattr(model.model, "get_rope_index"):
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, eos_token_id=None, **inputs
        )
    return list(out[0, len(prompt_ids) :].tolist())


SIZES = [[(700, 1000)], [(90, 60)], [(1, 1)], [(300, 40), (40, 300)], [(112, 112), (500, 500)]]


def _assert_same_pixels(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Compare pixels, -1 to 1; before Pillow 13 the processor's, which it resizes, may be one or two of 255 off."""
    apart = np.abs(ours - theirs)
    if int(PIL.__version__.split(".")[0]) >= 13:
        assert apart.max() <= 1e-6
    else:
        assert apart.max() <= 2 / 127.5 + 1e-6
        assert (apart > 1e-6).mean() < 0.02


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_pixels_are_those_of_the_image_processor(engine: Engine, sizes: list[tuple[int, int]]) -> None:
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    request = engine.prepare(ask(*images, "What is it?"))
    processed = process(engine, images)
    strips = np.concatenate([engine.model._strip(view) for view in request.pictures.views], axis=-1)
    _assert_same_pixels(strips, processed["pixel_values"][0].numpy())
    grids = [[view.shape[0] // 14, view.shape[1] // 14] for view in request.pictures.views]
    assert grids == processed["target_sizes"].tolist()
    divisor = 4 if engine.model.model.config.downsample_mode == "4x" else 16
    counts = [end - start for start, end in request.pictures.spans]
    assert counts == [rows * columns // divisor for rows, columns in grids]
    slot = engine.model.model.config.image_token_id
    slots = [place for start, end in request.pictures.spans for place in range(start, end)]
    assert [place for place, token in enumerate(request.prompt_ids) if token == slot] == slots


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_tokens_are_those_of_generate(engine: Engine, sizes: list[tuple[int, int]]) -> None:
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    request = engine.prepare(ask("Look:", *images, "What is it?"), sampling=GREEDY)
    ours = generate_ids(engine.model, request.prompt_ids, request.sampling, pictures=request.pictures)
    assert ours == generate_natively(engine, request.prompt_ids, process(engine, images))


def test_a_long_prompt_in_parts_gives_the_logits_of_one_pass(engine: Engine) -> None:
    from transformers import DynamicCache

    from minicpm_core.generation import take_tokens

    request = engine.prepare(ask(*(picture(300, 300, seed) for seed in range(3)), "What? " * 200))
    assert len(request.prompt_ids) > 512
    with torch.inference_mode():
        inputs, _ = engine.model.prefill(torch.tensor([request.prompt_ids]), request.pictures)
        whole = engine.model(**inputs).logits[0, -1]
        cache = DynamicCache(config=engine.model.config)
        for start in range(0, len(request.prompt_ids), 200):
            part = {name: take_tokens(name, value, start, 200) for name, value in inputs.items()}
            last = engine.model(**part, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
    torch.testing.assert_close(last, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_placeholder_text_is_the_processors(engine: Engine, sizes: list[tuple[int, int]]) -> None:
    from transformers.models.minicpmv4_6.processing_minicpmv4_6 import MiniCPMV4_6Processor

    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    processed = process(engine, images)
    divisor = 4 if engine.model.model.config.downsample_mode == "4x" else 16
    processor = SimpleNamespace(**TOKENS, slice_mode=True)  # the real one cannot be made without torchvision
    expected = "\n".join(
        f"<image_id>{number}</image_id>"
        + MiniCPMV4_6Processor.replace_image_token(processor, processed, number, image_token_divisor=divisor)
        for number in range(len(images))
    )
    text = engine.render(ask("First", *images, "?"))
    assert f"user\nFirst\n{expected}\n?<|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_text_alone_and_the_stream(engine: Engine) -> None:
    messages = ask("What is it?")
    answer = engine.generate(messages, sampling=GREEDY)
    assert answer == sum(engine.stream(messages, sampling=GREEDY), type(answer)())
    request = engine.prepare(messages, sampling=GREEDY)
    assert request.pictures is None
    model, ids = engine.model.model, torch.tensor([request.prompt_ids])
    with torch.inference_mode():
        mask = torch.ones_like(ids)
        if hasattr(model.model, "rope_deltas"):
            model.model.rope_deltas = None
        native = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=12, eos_token_id=None)
    assert generate_ids(engine.model, request.prompt_ids, request.sampling) == native[0, ids.shape[1] :].tolist()


def test_features_do_not_depend_on_other_pictures(engine: Engine) -> None:
    pictures = engine.prepare(ask(picture(90, 60), picture(200, 90, 1))).pictures.pictures
    with torch.inference_mode():
        together = engine.model.encode(Pictures(pictures, ()))
        alone = [f for one in pictures for f in engine.model.encode(Pictures((one,), ()))]
    assert len(together) == len(alone) >= 2
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [native("minicpm_ocr")])
def test_ocr_may_leave_small_pictures_small(kind: str, tmp_path: Path) -> None:
    never = load(write_native(tmp_path / "never", kind, small_image_upsize="never"), device="cpu")
    always = load(write_native(tmp_path / "always", kind, small_image_upsize="always"), device="cpu")
    assert [v.shape for v in never.prepare(ask(picture(60, 30))).pictures.views] == [(28, 56, 3)]
    assert [v.shape for v in always.prepare(ask(picture(60, 30))).pictures.views] == [(84, 168, 3)]


def test_a_class_that_transformers_lacks_is_told() -> None:
    with pytest.raises(ImportError, match=r'^transformers \S+ has no NoSuchConfig: .*"transformers>=5.21".* 3\.11'):
        to_native("NoSuchConfig", {})
