"""A picture -> its texts and their places, by a model."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from minicpm_core.images import read_image
from minicpm_core.ocr.boxes import TextBox, merge_lines, parse_boxes
from minicpm_core.ocr.grammar import EXAMPLES, Form, constrain_boxes
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.types import Sampling

if TYPE_CHECKING:
    from minicpm_core.engine import Engine

PROMPT = (
    "Read all the text in the picture, line by line from top to bottom. Write each line as {example}, with the upper "
    "left and the lower right corner in thousandths of the picture's width and height."
)


class TextBoxWarning(UserWarning):
    """Something of a picture's text is missing: a box that cannot be read, or an answer that was cut."""


def read_text(
    image: Any,
    engine: Engine,
    *,
    prompt: str | None = None,
    form: Form = "tagged",
    constrained: bool = True,
    merge: bool = False,
    sampling: Sampling | None = None,
    pictures: PictureSettings | None = None,
) -> list[TextBox]:
    """Return the texts of a picture with their places in pixels, in the model's order.

    Places are those of the upright picture: `ImageOps.exif_transpose` turns a photo as it is meant. What is missing is
    told by a `TextBoxWarning`.

    Args:
        image: in any form that messages accept: path, URL, data URI, base64 text, bytes, PIL, NumPy.
        engine: of a model that sees; the framework classes' `load_engine()` returns theirs.
        prompt: the question; None asks for the form. A model that was trained on OCR with places needs its own.
        form: "tagged", `<ref>text</ref><box>x1 y1 x2 y2</box>`, or "nested", as the OCR_VG project writes:
            `<ref>text<box>x1</box><box>y1</box><box>x2</box><box>y2</box></ref>`.
        constrained: the answer follows the form's grammar, so that every box is well-formed; False for models that
            write another of the forms that `parse_boxes` reads.
        merge: join the boxes to whole lines (`merge_lines`).
        sampling: greedy where it is None; `max_new_tokens` bounds the answer.
        pictures: how the picture is read; more slices show smaller writing.

    Raises:
        ValueError: no picture, an unknown form, a model that does not see, or too few tokens for one line.
    """
    if form not in EXAMPLES:
        raise ValueError(f"form is {form!r}; accepted: {', '.join(EXAMPLES)}")
    upright = read_image(image, pictures)
    question = PROMPT.format(example=EXAMPLES[form]) if prompt is None else prompt
    content = [{"type": "image", "image": upright}, {"type": "text", "text": question}]
    chosen = sampling or Sampling(temperature=0.0)
    answer = engine.generate(
        [{"role": "user", "content": content}],
        sampling=replace(chosen, repetition_penalty=chosen.repetition_penalty or 1.0),  # digits and tags come again
        grammar=partial(constrain_boxes, form=form) if constrained else None,
        enable_thinking=False if engine.family.thinking else None,
        pictures=pictures,
    )
    boxes, bad = parse_boxes(answer.content, upright.size)
    if bad:
        told = "; ".join(str(box) for box in bad[:5]) + (f"; and {len(bad) - 5} more" if len(bad) > 5 else "")
        warnings.warn(
            f"{len(bad)} of {len(bad) + len(boxes)} boxes cannot be read: {told}", TextBoxWarning, stacklevel=2
        )
    if answer.finish_reason == "length":
        said = "the answer's tokens ended before the picture's text may have; allow more max_new_tokens"
        warnings.warn(said, TextBoxWarning, stacklevel=2)
    return merge_lines(boxes) if merge else boxes
