"""Text of pictures with its places: read by a model, parsed, joined to lines and drawn."""

from __future__ import annotations

from minicpm_core.ocr.boxes import BadBox, TextBox, merge_lines, parse_boxes
from minicpm_core.ocr.drawing import draw_boxes
from minicpm_core.ocr.reading import TextBoxWarning, read_text

__all__ = ["BadBox", "TextBox", "TextBoxWarning", "draw_boxes", "merge_lines", "parse_boxes", "read_text"]
