"""The one token stream: prompt in chunks, tokens (and guesses at what follows them), chunks of text out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from minicpm_core.answers import Answer
from minicpm_core.memory_plan import PREFILL_CHUNK
from minicpm_core.prefix import Prefixes, shared
from minicpm_core.speculation import Lookup
from minicpm_core.types import Chunk
from minicpm_core.vision import Cancelled
from minicpm_core.vision.features import FeatureCache, mark_slots


def generate_chunks(
    model: Any,
    prompt_ids: list[int],
    pictures: Any,
    answer: Answer,
    cancelled: threading.Event,
    prefixes: Prefixes | None = None,
    features: FeatureCache | None = None,
    *,
    prefill_chunk: int = PREFILL_CHUNK,
) -> Iterator[Chunk]:
    """Yield the answer's chunks; ends early, without a last chunk, when `cancelled` is set.

    Args:
        model: a language model of transformers, or one of `vision`.
        prompt_ids: token ids.
        pictures: the prompt's pictures (`vision.prompt.Pictures`), None where there are none.
        answer: the answer in the making.
        cancelled: looked at between two steps.
        prefixes: what earlier requests have read; None computes the whole prompt.
        features: those of earlier pictures; None keeps none.
        prefill_chunk: prompt tokens per forward pass.
    """
    import torch

    prefixes = Prefixes(0) if prefixes is None else prefixes
    keys = prompt_ids if pictures is None else mark_slots(prompt_ids, pictures, joint=model.joint)
    with torch.inference_mode(), prefixes.open(model, keys) as context:
        answer.cached_tokens = len(context.ids)
        tokens = answer.begin()
        prompt = {"input_ids": torch.tensor([prompt_ids], device=model.device)}
        if pictures is not None:
            ids = prompt["input_ids"]
            try:
                if len(context.ids) < pictures.end:
                    prompt, context.skipped = model.prefill(ids, pictures, cancelled, features)
                else:
                    placed, context.skipped = model.place(ids, pictures)
                    prompt |= placed
            except Cancelled:
                return
        logits = context.prompt[1]
        # Where a copy is made for later questions.
        seen = pictures.end if pictures is not None and not context.can_rewind else 0
        while (start := len(context.ids)) < len(keys):
            if cancelled.is_set():
                return
            count = min(prefill_chunk, seen - start) if start < seen else prefill_chunk
            part = {name: take_tokens(name, values, start, count) for name, values in prompt.items()}
            logits = context.read(keys[start : start + count], part)
            if len(context.ids) == seen:
                prefixes.keep_copy(context)
        context.prompt = len(context.ids), logits
        del prompt
        yield from answer.read(tokens)
        text, lookup = prompt_ids + tokens, Lookup()
        draft: list[int] = []
        while not answer.ended:
            if cancelled.is_set():
                return
            if tokens:
                draft = lookup.draft(text, answer.left - 1) if context.can_rewind else []
                logits = context.read(tokens + draft, rows=len(draft) + 1)
            right = 0
            while not answer.ended:  # each row of logits tells the token behind it, while the draft is right
                tokens, logprobs = answer.choose(logits[right])
                text += tokens
                yield from answer.read(tokens, logprobs)
                same = shared(tokens, draft[right:])
                right += same
                if same < len(tokens):
                    break
            tokens = tokens[same:]
            context.forget(len(draft) - right)
            lookup.judge(len(draft), right)
    if not cancelled.is_set():
        yield answer.last()


def take_tokens(name: str, values: Any, start: int, count: int) -> Any:
    """Return `count` tokens of a model input; tokens are the second dimension, of position ids the last."""
    return values[..., start : start + count] if name == "position_ids" else values[:, start : start + count]
