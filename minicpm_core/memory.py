"""What a model will need in memory, told from its config and file headers before a weight is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from minicpm_core.checkpoints import Checkpoint, open_checkpoint
from minicpm_core.picture_bytes import NO_PICTURES, PictureBytes, count_pictures
from minicpm_core.published import PublishedModel
from minicpm_core.quantization import choose_quantization, stored_kind
from minicpm_core.weight_bytes import Form, Quantized, WeightBytes, count_weights
from minicpm_core.working_memory import Shape, workspace

RUNTIME_BYTES = 2**29
"""Python with torch, transformers and bitsandbytes at work, measured; on a GPU its context, which was not."""
PREFILL_CHUNK = 1024
"""Prompt tokens per forward pass, where the memory allows it."""
LEAST_CHUNK = 64
MIN_CONTEXT = 512
_ROOMY = 8192
"""A context window above this is not bought with shorter passes, which take longer."""
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes per part at the moment when most is needed: the end of a prompt that fills the context window.

    Args:
        linear_weights: the layers' matrices with their scales.
        table_weights: the embeddings and the output head.
        other_weights: norms, biases, and the vision tower.
        kv_cache: keys and values of a full context window.
        states: of linear attention; they do not grow with the text.
        logits: of the tokens that are looked at together, and what sampling makes of them.
        activations: what the layers make of one prefill chunk, dequantised weights included.
        pictures: what the vision tower and a picture's features take beyond that; the tower comes first.
        embeddings: an embedding model beside the language model.
        runtime: Python and the libraries; on a GPU, its context.
        context_window: tokens of prompt and answer together.
        prefill_chunk: prompt tokens per forward pass.
        limit: the bytes that all must fit into, None for no limit.
        quantization: of the weights.
        device: "cpu" or "cuda...".
        picture_cache: features of the pictures that were used last (`vision.features`).
    """

    linear_weights: int
    table_weights: int
    other_weights: int
    kv_cache: int
    states: int
    logits: int
    activations: int
    pictures: int
    embeddings: int
    runtime: int
    context_window: int
    prefill_chunk: int = PREFILL_CHUNK
    limit: int | None = None
    quantization: Quantized = None
    device: str = "cpu"
    picture_cache: int = 0

    @property
    def parts(self) -> dict[str, int]:
        """The bytes by part, which add up to `total`."""
        return {name: getattr(self, name) for name in _PARTS}

    @property
    def weights(self) -> int:
        """The weights of all kinds, in bytes."""
        return self.linear_weights + self.table_weights + self.other_weights

    @property
    def total(self) -> int:
        """All parts together, in bytes."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the total is within the limit."""
        return self.limit is None or self.total <= self.limit


_PARTS = (
    "linear_weights",
    "table_weights",
    "other_weights",
    "kv_cache",
    "states",
    "logits",
    "activations",
    "pictures",
    "picture_cache",
    "embeddings",
    "runtime",
)


@dataclass(frozen=True)
class Change:
    """Something that makes a plan smaller.

    Args:
        name: what to change, as an argument of `load` where it is one.
        frees: bytes.
        fits: whether it is enough.
    """

    name: str
    frees: int
    fits: bool


@dataclass(frozen=True)
class Needs:
    """What a model needs, from which plans are made.

    Args:
        shape: the language model's.
        longest: its longest context window in tokens.
        count: returns the bytes of the weights in a form.
        form: in which form they will be kept.
        limit: bytes, None for no limit.
        pictures: bytes that pictures take.
        embeddings: bytes of an embedding model.
    """

    shape: Shape
    longest: int
    count: Callable[[Form], WeightBytes]
    form: Form
    limit: int | None
    pictures: PictureBytes = NO_PICTURES
    embeddings: int = 0

    def plan(self, context_window: int | None) -> MemoryPlan:
        """Return the plan with this context window, or with the largest that fits the limit.

        The prefill chunk is the longest with which the plan fits and, where the window is free, is no shorter than
        8,192 tokens (or the model's own).
        """
        if context_window is not None and not 1 <= context_window <= self.longest:
            raise ValueError(f"context_window is {context_window}; this model accepts 1 to {self.longest} tokens")
        chunk = PREFILL_CHUNK
        while True:
            made = self._widest(chunk) if context_window is None else self._plan(context_window, chunk)
            roomy = context_window is not None or made.context_window >= min(_ROOMY, self.longest)
            if (made.fits and roomy) or chunk <= LEAST_CHUNK:
                return made
            chunk //= 2

    def changes(self, plan: MemoryPlan) -> list[Change]:
        """Return what would make the plan smaller, what frees most first."""
        window, chunk = plan.context_window, plan.prefill_chunk
        smaller: dict[str, MemoryPlan] = {}
        if plan.quantization is None:
            for kind in ("int4", "int8"):
                other = replace(self, form=replace(self.form, quantization=kind))
                smaller[f'quantization="{kind}"'] = other._plan(window, chunk)
        shorter = max(min(MIN_CONTEXT, self.longest), window // 2)
        smaller[f"context_window={shorter}"] = self._plan(shorter, chunk)
        smaller[f"a prefill chunk of {LEAST_CHUNK} (set by the limit)"] = self._plan(window, LEAST_CHUNK)
        if plan.embeddings:
            smaller["no embedding model beside it"] = replace(plan, embeddings=0)
        found = [Change(name, plan.total - other.total, other.fits) for name, other in smaller.items()]
        return sorted((change for change in found if change.frees > 0), key=lambda change: -change.frees)

    @cached_property
    def weights(self) -> WeightBytes:
        """The bytes of the weights."""
        return self.count(self.form)

    def _widest(self, chunk: int) -> MemoryPlan:
        """Return the plan with the largest context window that fits, the smallest sensible one where none does."""
        low, high = min(MIN_CONTEXT, self.longest), self.longest
        while low < high:
            middle = (low + high + 1) // 2
            if self._plan(middle, chunk).fits:
                low = middle
            else:
                high = middle - 1
        return self._plan(low, chunk)

    def _plan(self, window: int, chunk: int) -> MemoryPlan:
        form, shape, weights = self.form, self.shape, self.weights
        activations = shape.activations(chunk, window, form.value)
        activations += workspace(weights.largest, form.quantization, form.device)
        return MemoryPlan(
            linear_weights=weights.linears,
            table_weights=weights.tables,
            other_weights=weights.other,
            kv_cache=shape.kv_cache(window, form.value),
            states=shape.states(form.value) * (2 if self.pictures.cache else 1),  # a copy behind the last pictures
            logits=shape.logits(form.value),
            activations=activations,
            pictures=max(self.pictures.peak - activations, 0) + self.pictures.token * window,
            embeddings=self.embeddings,
            runtime=RUNTIME_BYTES,
            context_window=window,
            prefill_chunk=chunk,
            limit=self.limit,
            quantization=form.quantization,
            device=form.device,
            picture_cache=self.pictures.cache,
        )


def parse_bytes(size: int | str) -> int:
    """Return the bytes that "4GiB", "500 MB" or a number stand for."""
    if isinstance(size, int):
        value = size
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?b)?\s*", size.lower())
        if not match or (match[2] or "b") not in _UNITS:
            raise ValueError(f'memory size {size!r} cannot be read; accepted: bytes, or such as "4GiB" or "3500MB"')
        value = int(float(match[1]) * _UNITS[match[2] or "b"])
    if value <= 0:
        raise ValueError(f"memory size {size!r} must be more than zero")
    return value


def plan(
    model: str | Path,
    *,
    quantization: str | None = None,
    context_window: int | None = None,
    memory_limit: int | str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    embeddings: str | Path | None = None,
) -> MemoryPlan:
    """Return what `model` needs when it is loaded with these arguments, reading its config and file headers only.

    Args:
        model: folder, hub id, *.gguf file or "demo".
        quantization: "int4", "int8", "none" or "auto".
        context_window: tokens; None takes the model's own, or the largest that fits `memory_limit`.
        memory_limit: bytes, or such as "4GiB".
        dtype: as of `load`.
        device: as of `load`.
        embeddings: an embedding model that is loaded beside it: a folder, a hub id in the cache, or "demo".

    Raises:
        FileNotFoundError: no such folder, or files are missing in it.
        ValueError: an argument that is not accepted, or damaged files.
    """
    if not is_gguf(model):
        needs = read_needs(model, quantization, memory_limit, dtype=dtype, device=device, embeddings=embeddings)
        return needs.plan(context_window)
    from minicpm_core.embedder_bytes import embedder_bytes
    from minicpm_core.gguf.engine import plan_gguf_file

    beside = embedder_bytes(embeddings) if embeddings is not None else 0
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    left = None if limit is None else max(limit - beside, 1)
    options: dict[str, Any] = {"context_window": context_window, "memory_limit": left, "dtype": dtype, "device": device}
    alone = plan_gguf_file(model, quantization=quantization, **options)
    return replace(alone, embeddings=beside, limit=limit)


def is_gguf(model: str | Path) -> bool:
    """Tell whether a model's name is that of a GGUF file."""
    return str(model).lower().endswith(".gguf")


def read_needs(
    model: str | Path,
    quantization: str | None = None,
    memory_limit: int | str | None = None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    embeddings: str | Path | None = None,
) -> Needs:
    """Return what `plan` is made from; the arguments are the same, but a GGUF file has a plan only."""
    from minicpm_core.devices import choose_device, choose_dtype
    from minicpm_core.embedder_bytes import embedder_bytes

    checkpoint = open_checkpoint(model)
    chosen = choose_device(device)
    value = float(choose_dtype(dtype, checkpoint, chosen).itemsize)
    beside = embedder_bytes(embeddings) if embeddings is not None else 0
    needs = checkpoint_needs(checkpoint, quantization, memory_limit, bytes_per_value=value, device=chosen)
    return replace(needs, embeddings=beside)


def plan_checkpoint(
    checkpoint: Checkpoint,
    quantization: str | None,
    context_window: int | None = None,
    memory_limit: int | str | None = None,
    *,
    bytes_per_value: float = 2.0,
    device: str = "cpu",
) -> MemoryPlan:
    """Return the plan for an open checkpoint; `bytes_per_value` is that of the dtype the model runs in."""
    needs = checkpoint_needs(checkpoint, quantization, memory_limit, bytes_per_value=bytes_per_value, device=device)
    return needs.plan(context_window)


def checkpoint_needs(
    checkpoint: Checkpoint,
    quantization: str | None,
    memory_limit: int | str | None,
    *,
    bytes_per_value: float,
    device: str,
) -> Needs:
    """Return what an open checkpoint needs; the arguments are those of `plan_checkpoint`."""
    config = checkpoint.family.translate(checkpoint.config)
    text = config.get_text_config()
    size = sum(f.stat().st_size for f in checkpoint.weight_files)
    stored = stored_kind(checkpoint.config)
    chosen = choose_quantization(quantization, weight_bytes=size, stored=stored)
    return Needs(
        shape=Shape.read(text),
        longest=int(text.max_position_embeddings),
        count=lambda form: count_weights(checkpoint, config, form),
        form=Form(chosen, bytes_per_value, device),
        limit=parse_bytes(memory_limit) if memory_limit is not None else None,
        pictures=count_pictures(checkpoint, text.hidden_size, bytes_per_value),
    )


def plan_published(
    model: PublishedModel, quantization: Quantized, limit: int | None, *, device: str = "cpu"
) -> MemoryPlan:
    """Return the plan for a published checkpoint that need not be here."""
    needs = Needs(
        shape=Shape.read(model),
        longest=model.max_position_embeddings,
        count=lambda form: count_published(model, form),
        form=Form(quantization, 2.0, device),
        limit=limit,
    )
    return needs.plan(None)


def count_published(model: PublishedModel, form: Form) -> WeightBytes:
    """Return the bytes of a published model's weights."""
    tables = form.table(model.vocab_size, model.hidden_size, is_head=True)
    if not model.tie_word_embeddings:
        tables += form.table(model.vocab_size, model.hidden_size, is_head=False)
    matrices = model.matrices
    linears = model.num_hidden_layers * sum(form.linear(rows, columns) for rows, columns in matrices)
    return WeightBytes(linears, tables, form.plain(model.norm_weights), max(r * c for r, c in matrices))


def refuse_if_too_large(memory: MemoryPlan, name: str, needs: Needs | None = None) -> None:
    """Raise MemoryError with the numbers, and what would help, when the plan exceeds its limit."""
    if memory.fits:
        return
    advice = [f"{c.name} (frees {gib(c.frees)})" for c in (needs.changes(memory) if needs else [])][:3]
    raise MemoryError(
        f"{name} needs {gib(memory.total)} (weights {gib(memory.weights)}, context of {memory.context_window} tokens "
        f"{gib(memory.kv_cache)}, activations {gib(memory.activations)}, runtime {gib(memory.runtime)}) "
        f"and the limit is {gib(memory.limit or 0)}; what helps: {', '.join([*advice, 'a higher memory_limit'])}, or a "
        "smaller model"
    )


def gib(size: int) -> str:
    """Return a size for people; in MiB where there would be too few digits."""
    return f"{size / 2**30:.2f} GiB" if size >= 0.095 * 2**30 else f"{size / 2**20:.1f} MiB"


def available_memory(device: str) -> int:
    """Return the bytes that are free now on `device` ("cpu" or "cuda...")."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if match:
            return int(match[1]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 8 * 2**30
