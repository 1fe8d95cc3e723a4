"""A plan in bytes per part; what a model needs, from which plans are made, and what makes them smaller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from minicpm_core.picture_bytes import NO_PICTURES, PictureBytes
from minicpm_core.sizes import gib
from minicpm_core.weight_bytes import Form, Quantized, WeightBytes
from minicpm_core.working_memory import Shape, workspace

RUNTIME_BYTES = 2**29
"""Python with torch, transformers and bitsandbytes at work, measured; on a GPU its context, which was not."""
PREFILL_CHUNK = 1024
"""Prompt tokens per forward pass, where the memory allows it."""
LEAST_CHUNK = 64
MIN_CONTEXT = 512
_ROOMY = 8192
"""A context window above this is not bought with shorter passes, which take longer."""


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
    def cache_tokens(self) -> int:
        """Tokens that the caches of several texts may hold: those of the context window, and what the limit leaves."""
        spare = max((self.limit or self.total) - self.total, 0) + self.kv_cache
        return spare // max(self.kv_cache // self.context_window, 1)

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
