"""The snippets of docs/pictures.md run, one after the other, on a small random model that sees."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from minicpm_core import downloads, fetching, images, messages
from minicpm_core.picture_settings import MAX_FRAMES, PictureSettings
from minicpm_core.vision import video
from tests.toy_vision import write_native

av = pytest.importorskip("av", reason="PyAV is not installed")
TEXT = (Path(__file__).parent.parent / "docs" / "pictures.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def write_files(folder: Path) -> None:
    receipt = Image.new("RGB", (240, 320), "white")
    ImageDraw.Draw(receipt).text((20, 20), "Corner Shop\n\nTea 3.50\nTotal 3.50", fill="black")
    receipt.save(folder / "receipt.png")
    receipt.save(folder / "scan.pdf", save_all=True, append_images=[receipt, receipt])
    with av.open(str(folder / "film.mp4"), "w") as film:
        track = film.add_stream("mpeg4", rate=5)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for _ in range(25):
            for packet in track.encode(av.VideoFrame.from_image(receipt.resize((64, 48)))):
                film.mux(packet)
        for packet in track.encode():
            film.mux(packet)


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path)
    monkeypatch.setenv("MINICPM_VISION_MODEL", str(write_native(tmp_path / "model", "minicpmv4_6")))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = []
    for number, snippet in enumerate(SNIPPETS):
        exec(compile(snippet, f"docs/pictures.md, snippet {number}", "exec"), names)
        printed.append(capsys.readouterr().out)
    assert len(printed) == 9
    assert printed[1].splitlines()[0] == printed[1].splitlines()[1], "chat and complete answer alike"
    whole, uncut, both, used, used_too = printed[5].splitlines()
    assert both == f"{whole} {whole}"
    assert used == used_too == uncut
    assert int(uncut) < int(whole)
    assert printed[6].startswith("shop=")
    assert printed[7].startswith("shop=")
    assert "'name': 'keep_total'" in printed[8]


def test_the_limits_are_the_codes() -> None:
    assert images.MAX_FILE_BYTES == 128 * 2**20
    assert (images.MAX_PIXELS, images.MAX_ASPECT) == (80_000_000, 1000)
    assert messages.MAX_PICTURES == MAX_FRAMES == 256
    assert video.MAX_FILM_BYTES == 512 * 2**20
    assert (fetching.TIMEOUT, fetching.MAX_REDIRECTS) == (20, 5)
    assert (downloads.KEPT_SECONDS, downloads.MAX_KEPT_BYTES) == (600, 64 * 2**20)
    arguments = re.findall(r"^\| `([a-z_]+)` \|", TEXT, re.MULTILINE)
    assert arguments == list(PictureSettings.__dataclass_fields__)
