"""The tower runs once per picture, and what was read of one picture never serves for another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from minicpm_core import Engine, PictureSettings, Sampling, load, plan
from minicpm_core.prefix import can_rewind
from minicpm_core.vision import features as module
from minicpm_core.vision.features import FeatureCache, count_groups, find_units, mark_slots
from minicpm_core.vision.prompt import Picture, Pictures
from minicpm_core.yes_no import first_logits
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import has_class, native, write_native

GREEDY = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=6)
VERSIONS = ("2.0", "2.5", "2.6", "4.5", "4.6", "4.7")


def picture(seed: int = 0, width: int = 200, height: int = 90) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def ask(*parts: Any) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return [{"role": "user", "content": content}]


def view(value: int) -> Any:
    return np.full((4, 4, 3), value, np.uint8)


NATIVE = {"4.6": "minicpmv4_6", "4.7": "minicpmv4_7", "ocr": "minicpm_ocr"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    def write(version: str) -> Path:
        folder = tmp_path_factory.mktemp(f"v{version}")
        return write_native(folder, NATIVE[version]) if version in NATIVE else write_minicpmv(folder, version)

    here = [version for version in (*VERSIONS, "ocr") if version not in NATIVE or has_class(NATIVE[version])]
    return {version: write(version) for version in here}


@pytest.fixture(params=VERSIONS)
def engine(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Engine:
    return load(folders[request.param], dtype="float32", device="cpu")


@pytest.fixture
def looks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of pictures whenever the tower runs."""
    return watch(engine, monkeypatch)


def watch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    encode = engine.model.encode
    monkeypatch.setattr(
        engine.model, "encode", lambda pictures, *more: seen.append(len(pictures.pictures)) or encode(pictures, *more)
    )
    return seen


def cold(folder: Path, prompt: Any, **options: Any) -> Any:
    with load(folder, dtype="float32", device="cpu") as engine:
        return engine.generate(prompt, sampling=GREEDY, **options)


def test_the_tower_runs_once_per_picture(engine: Engine, looks: list[int]) -> None:
    folder = engine.checkpoint.folder
    prompts = [
        ask(picture(), "What is it?"),
        ask(picture(), "Where does it stand?"),
        ask("Other words before it.", picture(), "What is it?"),
        [{"role": "system", "content": "Be brief."}, *ask(picture(), "And this?")],
    ]
    for prompt in prompts:
        assert engine.generate(prompt, sampling=GREEDY) == cold(folder, prompt)
    assert looks == [1]
    assert engine.generate(ask(picture(1), "?"), sampling=GREEDY) == cold(folder, ask(picture(1), "?"))
    assert looks == [1, 1]


def test_only_new_pictures_run_and_all_of_them_together(engine: Engine, looks: list[int]) -> None:
    engine.generate(ask(picture(0), "?"), sampling=GREEDY)
    both = ask(picture(0), picture(1, 90, 200), picture(2), picture(1, 90, 200), "?")
    answer = engine.generate(both, sampling=GREEDY)
    assert looks == [1, 4 if engine.model.joint else 2]
    assert answer.content == cold(engine.checkpoint.folder, both).content
    assert engine.model.joint is (engine.family.name == "minicpm-v-2.5")


def test_views_of_several_pictures_go_through_the_tower_as_batches(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    tower = engine.model.model.model.vision_tower if hasattr(engine.model, "model") else engine.model.vpm
    forward = tower.forward

    def count(*args: Any, **kwargs: Any) -> Any:
        target = kwargs.get("target_sizes", args[1] if len(args) > 1 else None)
        passes.append(len(target) if hasattr(engine.model, "model") else len(args[0]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(tower, "forward", count)
    shown = [picture(0, 40, 40), picture(1, 40, 40), picture(2, 44, 40), picture(3, 40, 42), picture(4, 40, 40)]
    engine.generate(ask(*shown, "?"), sampling=GREEDY)
    assert (passes, len(engine.prepare(ask(*shown)).pictures.views)) == ([4, 1], 5)


def test_cached_features_are_those_of_a_cold_run(engine: Engine) -> None:
    request = engine.prepare(ask(picture(0), picture(1, 90, 200), "?"))
    alone = engine.prepare(ask(picture(1, 90, 200), "?"))
    ids, cache = torch.tensor([request.prompt_ids]), FeatureCache(2**20)
    with torch.inference_mode():
        engine.model.prefill(torch.tensor([alone.prompt_ids]), alone.pictures, None, cache)
        mixed, fresh = (engine.model.prefill(ids, request.pictures, None, c)[0]["inputs_embeds"] for c in (cache, None))
        again = engine.model.prefill(ids, request.pictures, None, cache)[0]["inputs_embeds"]
    torch.testing.assert_close(mixed, fresh, rtol=0, atol=2e-5 * float(fresh.abs().max()))
    assert torch.equal(again, mixed)


def test_settings_of_a_picture_are_part_of_its_key(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(folders["4.6"], dtype="float32", device="cpu")
    looks = watch(engine, monkeypatch)
    for options in (PictureSettings(), PictureSettings(max_slice_nums=1), PictureSettings(downsample_mode="4x")):
        for _ in range(2):
            answer = engine.generate(ask(picture(), "?"), sampling=GREEDY, pictures=options)
        assert answer == cold(folders["4.6"], ask(picture(), "?"), pictures=options)
    assert looks == [1, 1, 1]


@pytest.mark.parametrize("version", ["2.6", "4.5"])
def test_pictures_of_equal_text_never_share_a_prefix(version: str, folders: dict[str, Path]) -> None:
    engine = load(folders[version], dtype="float32", device="cpu")
    first, other = (engine.prepare(ask(picture(n), "What is it?")) for n in (0, 1))
    assert first.prompt_ids == other.prompt_ids
    engine.generate(ask(picture(0), "What is it?"), sampling=GREEDY)
    answer = engine.generate(ask(picture(1), "What is it?"), sampling=GREEDY)
    assert answer == cold(folders[version], ask(picture(1), "What is it?"))
    assert answer.usage is not None
    assert answer.usage.cached_tokens <= first.pictures.spans[0][0]


def test_a_further_picture_keeps_the_prefix_through_the_first(folders: dict[str, Path]) -> None:
    for version, joint in (("2.6", False), ("2.5", True)):
        engine = load(folders[version], dtype="float32", device="cpu")
        turns = [*ask(picture(0), "What is it?"), {"role": "assistant", "content": "A lamp."}]
        engine.generate(turns[:1], sampling=GREEDY)
        answer = engine.generate([*turns, *ask(picture(1), "And this?")], sampling=GREEDY)
        last = engine.prepare(turns[:1]).pictures.end
        assert answer.usage is not None
        assert (answer.usage.cached_tokens > last) is not joint
        assert answer == cold(folders[version], [*turns, *ask(picture(1), "And this?")])


@pytest.mark.parametrize("version", [native(kind, version) for version, kind in NATIVE.items()])
def test_what_cannot_go_back_goes_on_behind_the_last_picture(version: str, folders: dict[str, Path]) -> None:
    engine = load(folders[version], dtype="float32", device="cpu")
    assert not can_rewind(engine.model.config, DynamicCache(config=engine.model.config))
    turn = ask("Look at this:", picture(), "What is it?")
    further = [*turn, {"role": "assistant", "content": "A lamp."}, *ask("And here?", picture(1), "And this?")]
    more = [*further, {"role": "assistant", "content": "A cup."}, {"role": "user", "content": "Sure?"}]
    same = ask("Look at this:", picture(), "Where does it stand?")
    first, last = (engine.prepare(prompt).pictures.end for prompt in (turn, further))
    for prompt, kept in ((turn, 0), (same, first), (further, first), (more, last), (same, 0)):
        answer = engine.generate(prompt, sampling=GREEDY)
        assert answer == cold(folders[version], prompt)
        assert answer.usage.cached_tokens == kept
        with load(folders[version], dtype="float32", device="cpu") as other:
            expected = first_logits(other, prompt)
        torch.testing.assert_close(first_logits(engine, prompt), expected, rtol=0, atol=1e-4)


def test_another_adapter_and_the_end_drop_the_features(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(folders["2.6"], dtype="float32", device="cpu")
    looks = watch(engine, monkeypatch)
    monkeypatch.setattr("minicpm_core.engine.switch_adapter", lambda *_: None)
    engine.generate(ask(picture(), "?"), sampling=GREEDY)
    assert engine._features.size > 0
    engine.set_adapter(None)
    assert engine._features.size == 0
    engine.generate(ask(picture(), "?"), sampling=GREEDY)
    assert looks == [1, 1]
    engine.close()
    assert engine._features.size == 0


def test_the_plan_and_the_report_count_the_cache(folders: dict[str, Path], tmp_path: Path) -> None:
    engine = load(folders["2.6"], dtype="float32", device="cpu")
    report = engine.memory_report()
    most = 8 * (6 + 1) * 4 * 128 * 4  # pictures, views, tokens, width, bytes
    assert report["picture_cache"] == most
    parts = {name: size for name, size in report.items() if name not in ("weights", "total", "parameters")}
    assert sum(parts.values()) == report["total"]
    assert plan(folders["2.6"], dtype="float32").picture_cache == most
    for number in range(12):
        engine.generate(ask(picture(number, 300, 200), "?"), sampling=GREEDY)
        assert 0 < engine._features.size <= most
    assert engine._features.size > most // 2


class Tower:
    """Turns each view into one token of its first value, and counts its runs."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def __call__(self, pictures: Pictures) -> torch.Tensor:
        self.runs.append(len(pictures.views))
        return torch.tensor([[[float(v[0, 0, 0])]] for v in pictures.views])


def show(*values: int, joint: bool = False) -> tuple[Pictures, bool]:
    return Pictures(tuple(Picture("", (view(value),)) for value in values), ()), joint


def test_the_least_recently_used_goes_first() -> None:
    cache, tower = FeatureCache(3 * 4), Tower()
    for values in ((1, 2), (3,), (1,), (4,)):  # 2 goes
        cache.encode(show(*values)[0], tower, joint=False)
    assert tower.runs == [2, 1, 1]
    assert cache.size == 12
    found = cache.encode(show(1, 3, 4)[0], tower, joint=False)
    assert [float(group) for group in found] == [1, 3, 4]
    assert tower.runs == [2, 1, 1]
    assert [float(g) for g in cache.encode(show(2, 2, 1)[0], tower, joint=False)] == [2, 2, 1]
    assert tower.runs == [2, 1, 1, 1]
    cache.clear()
    assert cache.size == 0


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache, tower = FeatureCache(4), Tower()
    large = Pictures((Picture("", (view(1), view(2))), Picture("", (view(3),))), ())
    assert [float(group) for group in cache.encode(large, tower, joint=False)] == [1, 2, 3]
    assert cache.size == 4
    assert len(FeatureCache().encode(large, tower, joint=False)) == 3


def test_pictures_that_depend_on_each_other_are_one_unit() -> None:
    cache, tower = FeatureCache(100), Tower()
    for values in ((1, 2), (1, 2), (2, 1), (1,)):
        cache.encode(show(*values)[0], tower, joint=True)
    assert tower.runs == [2, 2, 1]
    assert find_units(Pictures((), ()), joint=True) == []


def test_frames_read_together_are_one_group() -> None:
    frames = Picture("", (view(1), view(2)), frames=(0, 10))
    still = Picture("", (view(1), view(2)))
    assert (count_groups([frames]), count_groups([still])) == (1, 2)
    assert frames.digest != still.digest != Picture("", (view(1), view(2)), mode="4x").digest
    assert frames.digest != Picture("", (view(1), view(2)), frames=(0, 20)).digest
    assert Picture("x", still.views).digest == still.digest
    ids = mark_slots([7, 0, 7, 0, 0], Pictures((frames, still), ((1, 2), (3, 4), (4, 5))), joint=False)
    assert (ids[0], ids[2]) == (7, 7)
    assert ids[3] == ids[4] < 0 > ids[1] != ids[3]


def test_a_kept_part_does_not_hold_its_batch() -> None:
    cache = FeatureCache(100)
    (group,) = cache.encode(show(1)[0], lambda _: torch.zeros(1, 1000, 1)[:, :2], joint=False)
    cache.encode(show(1)[0], Tower(), joint=False)
    (kept,) = next(iter(cache._kept.values()))
    assert kept.untyped_storage().nbytes() == 8 < group.untyped_storage().nbytes()


def test_threads_share_the_cache() -> None:
    cache, tower, errors = FeatureCache(5 * 4), Tower(), []
    ready = threading.Barrier(8)

    def work(seed: int) -> None:
        ready.wait()
        draw = np.random.default_rng(seed)
        for _ in range(200):
            values = [int(value) for value in draw.integers(1, 12, 3)]
            found = [float(group) for group in cache.encode(show(*values)[0], tower, joint=False)]
            if found != values or not 0 <= cache.size <= 20:
                errors.append((values, found, cache.size))
            if draw.integers(0, 50) == 0:
                cache.clear()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert errors == []
    assert cache.size == module.count_bytes([group for groups in cache._kept.values() for group in groups])
