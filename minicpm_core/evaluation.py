"""What a quantisation costs and saves: perplexity, memory, loading time and speed."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from minicpm_core.checkpoints import open_checkpoint
from minicpm_core.devices import peak_memory
from minicpm_core.perplexity import log_likelihoods
from minicpm_core.speed import measure_speed, wait_for

TEXT = Path(__file__).with_name("evaluation.txt")
"""English and Chinese prose that was written for this package, so that no model was trained on it."""
WINDOW = 1024
DECODE_TOKENS = 32


@dataclass(frozen=True)
class Settings:
    """How a model is measured; the same for all rows of a table.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        memory_limit: bytes, or such as "4GiB", as for `load`.
        context_window: tokens; also the length of the windows in which the text is scored, 1024 at most by default.
        stride: new tokens scored per window; half a window by default.
        max_tokens_scored: of the text's beginning; None scores all of it.
        prompt_tokens: of the prompt whose reading is timed; 512, or what fits, by default.
        decode_tokens: single tokens that are timed behind it.
        seed: draws the timed tokens from those of the text.
    """

    device: str = "auto"
    memory_limit: int | str | None = None
    context_window: int | None = None
    stride: int | None = None
    max_tokens_scored: int | None = None
    prompt_tokens: int | None = None
    decode_tokens: int = DECODE_TOKENS
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """One model in one quantisation, measured.

    Args:
        model: as it was asked for.
        quantization: "none", "int8" or "int4".
        dtype: number format of what is not quantised.
        device: where it ran.
        threads: of torch, on the CPU.
        weight_bytes: of the model in memory.
        load_seconds: from files to a model, libraries imported before; nothing is taken from the cache of int4 copies.
        peak_bytes: after loading, reading the prompt and decoding: the process's resident memory (allocated memory on
            CUDA); None where the system does not tell it.
        scoring_peak_bytes: the same after the text was scored too.
        window: tokens of a scoring window.
        stride: new tokens per window.
        text_tokens: of the whole text.
        log_likelihoods: natural logarithms of the scored tokens' probabilities.
        prompt_tokens: of the timed prompt.
        prefill_tokens_per_second: median of three.
        decode_tokens: timed one by one behind the prompt.
        decode_tokens_per_second: median of three.
    """

    model: str
    quantization: str
    dtype: str
    device: str
    threads: int
    weight_bytes: int
    load_seconds: float
    peak_bytes: int | None
    scoring_peak_bytes: int | None
    window: int
    stride: int
    text_tokens: int
    log_likelihoods: tuple[float, ...]
    prompt_tokens: int
    prefill_tokens_per_second: float
    decode_tokens: int
    decode_tokens_per_second: float

    @property
    def cross_entropy(self) -> float:
        """Mean negative log likelihood of a scored token, in nats."""
        return -math.fsum(self.log_likelihoods) / len(self.log_likelihoods)

    @property
    def perplexity(self) -> float:
        """The exponential of `cross_entropy`; infinite where it is no longer a number of the machine."""
        return _exp(self.cross_entropy)

    def compare(self, other: Evaluation) -> tuple[float, float] | None:
        """Return the ratio of the perplexities, this to the other, and the standard error of the ratio.

        Tokens are compared in pairs, so the error is far smaller than that of either perplexity. None where the two
        scored other tokens, or in other windows.
        """
        alike = [(e.window, e.stride, len(e.log_likelihoods)) for e in (self, other)]
        if alike[0] != alike[1] or len(self.log_likelihoods) < 2:
            return None
        pairs = zip(self.log_likelihoods, other.log_likelihoods, strict=True)
        lost = [theirs - ours for ours, theirs in pairs]
        ratio = _exp(statistics.fmean(lost))
        return ratio, ratio * statistics.stdev(lost) / math.sqrt(len(lost))


@dataclass(frozen=True)
class Failure:
    """One model in one quantisation that could not be measured, and why."""

    model: str
    quantization: str
    error: str


def evaluate(model: str, quantization: str, text: str, settings: Settings | None = None) -> Evaluation:
    """Load a model and measure it, in this process.

    Args:
        model: a folder, a hub id or "demo".
        quantization: "none", "int8" or "int4".
        text: what is scored, and whose tokens the timed prompt is drawn from.
        settings: how.

    Raises:
        ValueError: the text has fewer than two tokens, or a setting does not fit the model or the others.
        MemoryError: the model does not fit into the limit.
        FileNotFoundError, ConnectionError, ImportError: as for `load`.
    """
    import torch

    from minicpm_core import load

    settings = settings or Settings()
    _import_for(model, quantization)
    started = time.perf_counter()
    with load(
        model,
        quantization=quantization,
        device=settings.device,
        memory_limit=settings.memory_limit,
        context_window=settings.context_window,
    ) as engine:
        device = engine.model.device
        wait_for(device)
        load_seconds = time.perf_counter() - started
        ids, length = engine.encode(text), engine.count_tokens(text)  # the former may begin with BOS
        if length < 2:
            raise ValueError(f"the text is {length} token(s) for this model; perplexity needs two at least")
        window, stride = _choose_windows(engine.context_window, settings)
        chunk, most = engine._memory.prefill_chunk, settings.max_tokens_scored or len(ids)
        with torch.inference_mode():
            prompt_tokens, prefill, decode = measure_speed(
                engine, ids, settings.prompt_tokens, settings.decode_tokens, seed=settings.seed
            )
            peak = peak_memory(device)
            scored = log_likelihoods(engine.model, ids[: most + 1], window=window, stride=stride, piece=chunk)
        return Evaluation(
            model=model,
            quantization=quantization,
            dtype=str(engine.model.dtype).removeprefix("torch."),
            device=str(device),
            threads=torch.get_num_threads(),
            weight_bytes=engine.memory_report()["parameters"],
            load_seconds=load_seconds,
            peak_bytes=peak,
            scoring_peak_bytes=peak_memory(device),
            window=window,
            stride=stride,
            text_tokens=length,
            log_likelihoods=tuple(scored),
            prompt_tokens=prompt_tokens,
            prefill_tokens_per_second=prefill,
            decode_tokens=settings.decode_tokens,
            decode_tokens_per_second=decode,
        )


def _import_for(model: str, quantization: str) -> None:
    """Import what loading would import, and download what it would, so that they are no part of its time."""
    import transformers

    family = open_checkpoint(model).family
    getattr(transformers, family.model_class)
    if family.vision:
        import_module(family.vision.module)
    if quantization != "none" and find_spec("bitsandbytes"):
        import_module("bitsandbytes")


def _choose_windows(context_window: int, settings: Settings) -> tuple[int, int]:
    window = settings.context_window or min(context_window, WINDOW)
    if window < 2:
        raise ValueError(f"context_window is {window}; two tokens at least are needed to score one")
    stride = window // 2 if settings.stride is None else settings.stride
    return window, stride


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
