"""`minicpm read`: the texts of a picture, with their places."""

from __future__ import annotations

import json
import os
import sys
import warnings
from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from minicpm_app.ask import print_line

if TYPE_CHECKING:
    from minicpm_core.engine import Engine

DEFAULT_MODEL = "openbmb/MiniCPM-V-4.6"


def run(options: Namespace) -> int:
    """Print each text after its corners in pixels (left, top, right, bottom), or one JSON object."""
    from minicpm_core import PictureSettings, Sampling, TextBoxWarning, draw_boxes, read_text
    from minicpm_core.images import read_image

    settings = PictureSettings(max_slice_nums=options.max_slices)
    picture = read_image(options.picture, settings)
    sampling = Sampling(options.temperature or 0.0, max_new_tokens=options.max_tokens, seed=options.seed)
    with _load(options) as engine, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", TextBoxWarning)
        boxes = read_text(picture, engine, merge=options.lines, sampling=sampling, pictures=settings)
    missing = [str(warning.message) for warning in told if issubclass(warning.category, TextBoxWarning)]
    if options.json:
        found = {"picture": options.picture, "width": picture.width, "height": picture.height}
        print_line(
            json.dumps(found | {"boxes": [asdict(box) for box in boxes], "missing": missing}, ensure_ascii=False)
        )
    else:
        for box in boxes:
            print_line(f"{box.left}\t{box.top}\t{box.right}\t{box.bottom}\t{box.text}")
        for text in missing:
            sys.stderr.write(f"minicpm read: warning: {text}\n")
    if options.boxes:  # at the end: what was read must not be lost where there is no font
        draw_boxes(picture, boxes, font=options.font).save(options.boxes)
    return 0


def _load(options: Namespace) -> Engine:
    from minicpm_core import load

    names = ("quantization", "device", "memory_limit", "context_window")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return load(options.model or os.environ.get("MINICPM_VISION_MODEL") or DEFAULT_MODEL, **given)
