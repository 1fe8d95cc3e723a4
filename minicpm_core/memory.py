"""What a model will need in memory, told from its config and file headers before a weight is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from minicpm_core.checkpoints import Checkpoint, open_checkpoint
from minicpm_core.devices import choose_device, choose_dtype
from minicpm_core.gguf import is_gguf
from minicpm_core.memory_plan import MemoryPlan, Needs
from minicpm_core.picture_bytes import count_pictures
from minicpm_core.published import PublishedModel
from minicpm_core.quantization import choose_quantization, stored_kind
from minicpm_core.sizes import parse_bytes
from minicpm_core.weight_bytes import Form, Quantized, count_published, count_weights
from minicpm_core.working_memory import Shape


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
    from minicpm_core.embedder_bytes import embedder_bytes

    checkpoint = open_checkpoint(model)
    chosen = choose_device(device)
    value = float(choose_dtype(dtype, checkpoint, chosen).itemsize)
    beside = embedder_bytes(embeddings) if embeddings is not None else 0
    needs = checkpoint_needs(checkpoint, quantization, memory_limit, bytes_per_value=value, device=chosen)
    return replace(needs, embeddings=beside)


def checkpoint_needs(
    checkpoint: Checkpoint,
    quantization: str | None,
    memory_limit: int | str | None,
    *,
    bytes_per_value: float,
    device: str,
) -> Needs:
    """Return what an open checkpoint needs; `bytes_per_value` is that of the dtype the model runs in."""
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
