"""The one token stream: prompt in chunks, tokens one by one, text pieces out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minicpm_core.decoding import CLOSE_THINK, OPEN_THINK, ReasoningSplitter, StopTexts, TokenDecoder
from minicpm_core.families import Family
from minicpm_core.memory import PREFILL_CHUNK
from minicpm_core.sampler import Sampler
from minicpm_core.types import Chunk, FinishReason, Sampling, Usage
from minicpm_core.vision import Cancelled


@dataclass(frozen=True)
class Request:
    """An encoded prompt with every option decided."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    thinking_opened: bool = False
    """The prompt ends with the opening tag, so the answer begins inside the reasoning."""
    pictures: Any = None
    """The prompt's pictures (`vision.prompt.Pictures`), with the places of their tokens."""


def generate_chunks(
    model: Any,
    tokenizer: Any,
    tokenizer_lock: threading.Lock,
    family: Family,
    stop_ids: frozenset[int],
    request: Request,
    cancelled: threading.Event,
) -> Iterator[Chunk]:
    """Yield the answer's chunks; ends early, without a last chunk, when `cancelled` is set."""
    visible = {OPEN_THINK, CLOSE_THINK}
    special = {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special and token.content not in visible
    }
    decoder = TokenDecoder(tokenizer, hidden=special)
    stops = StopTexts(request.stop)
    splitter = ReasoningSplitter(enabled=family.thinking, opened=request.thinking_opened)
    finish: FinishReason = "length"
    count = reasoning_count = 0
    for token in generate_ids(model, request, cancelled):
        count += 1
        if token in stop_ids:
            finish = "stop"
            break
        with tokenizer_lock:
            text = decoder.push(token)
        reasoning_count += splitter.in_reasoning
        reasoning, content = splitter.push(text)
        chunk = Chunk(stops.push(content), reasoning)
        if chunk:
            yield chunk
        if stops.found:
            finish = "stop"
            break
    if cancelled.is_set():
        return
    with tokenizer_lock:
        rest = decoder.flush()
    reasoning, content = splitter.push(rest)
    last_reasoning, last_content = splitter.flush()
    content = stops.push(content + last_content)
    usage = Usage(len(request.prompt_ids), count, reasoning_tokens=reasoning_count)
    yield Chunk(content + stops.flush(), reasoning + last_reasoning, (), "stop" if stops.found else finish, usage)


def generate_ids(model: Any, request: Request, cancelled: threading.Event) -> Iterator[int]:
    """Yield token ids until max_new_tokens, or until `cancelled` is set."""
    import torch
    from transformers import DynamicCache

    sampler = Sampler(request.sampling, list(request.prompt_ids))
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        prompt = {"input_ids": torch.tensor([request.prompt_ids], device=model.device)}
        skipped = 0  # positions that pictures take beyond their tokens
        if request.pictures is not None:
            try:
                prompt, skipped = model.prefill(prompt["input_ids"], request.pictures, cancelled)
            except Cancelled:
                return
        for start in range(0, len(request.prompt_ids), PREFILL_CHUNK):
            if cancelled.is_set():
                return
            part = {name: take_tokens(name, values, start, PREFILL_CHUNK) for name, values in prompt.items()}
            logits = model(**part, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        del prompt
        for left in range(request.sampling.max_new_tokens or 0, 0, -1):
            token = sampler.draw(logits[0, -1])
            yield token
            if left == 1 or cancelled.is_set():
                return
            part = {"input_ids": torch.tensor([[token]], device=model.device)}
            if skipped:
                part["position_ids"] = torch.full((1, 1), cache.get_seq_length() + skipped, device=model.device)
            logits = model(**part, past_key_values=cache, use_cache=True, logits_to_keep=1).logits


def take_tokens(name: str, values: Any, start: int, count: int) -> Any:
    """Return `count` tokens of a model input; tokens are the second dimension, of position ids the last."""
    return values[..., start : start + count] if name == "position_ids" else values[:, start : start + count]
