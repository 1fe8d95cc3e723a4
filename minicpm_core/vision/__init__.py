"""MiniCPM-V: pictures to slices, slices to features, features into the language model's prompt."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

BATCH = 4
"""Views per pass of the tower; more take memory and, on a CPU, save no time."""


class Cancelled(Exception):
    """The request was cancelled while its pictures were read."""


def refuse_cancelled(cancelled: threading.Event | None) -> None:
    """Raise Cancelled where the event is set."""
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


@dataclass(frozen=True)
class Vision:
    """What a row of the family table says about pictures; every number comes from the checkpoint's own files.

    Args:
        module: where `load_model` and `load_pictures` of the family live.
        tower: how a patch's place reaches the tower. "square": a table resized to the picture's grid (timm);
            "strip": places along one line, padded slices included (V-2.5); "grid": NaViT's buckets of rows and columns.
        nested_slices: slices stand as `<image>` parts inside one `<slice>`, and pictures are not numbered (2.0, 2.5).
        temporal: frames of a video are read with their times, several at once where asked (4.5).
        sliced: large pictures are cut into tiles; V-1.0 sees one square view only.
    """

    module: str = "minicpm_core.vision.minicpmv"
    tower: Literal["square", "strip", "grid"] = "grid"
    nested_slices: bool = False
    sliced: bool = True
    temporal: bool = False
