"""A model's limits before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plan_limits(
    *,
    model: str,
    quantization: str | None,
    dtype: str,
    device: str,
    memory_limit: int | str | None,
    context_window: int | None,
    family: str | None,
    revision: str | None,
    max_waiting: int | None = None,
    **others: Any,
) -> tuple[int, int | None] | None:
    """Return (context window, recommended length of an answer) in tokens, from config.json and file headers.

    None when the checkpoint is not on this machine, or when loading will refuse the arguments in `others`.
    """
    from minicpm_core.checkpoints import open_checkpoint
    from minicpm_core.devices import available_memory, choose_device, choose_dtype
    from minicpm_core.gguf import is_gguf
    from minicpm_core.memory import checkpoint_needs

    name = None if any(others.values()) else _find_local(model, revision)
    if name is None:
        return None
    if is_gguf(name):
        from minicpm_core.gguf.engine import gguf_limits

        return gguf_limits(name, device, memory_limit, context_window, family)
    checkpoint = open_checkpoint(name, family=family)
    chosen = choose_device(device)
    width = float(choose_dtype(dtype, checkpoint, chosen).itemsize)
    limit = memory_limit if memory_limit is not None else available_memory(chosen)
    needs = checkpoint_needs(checkpoint, quantization, limit, bytes_per_value=width, device=chosen)
    return needs.plan(context_window).context_window, checkpoint.family.sampling.max_new_tokens


def _find_local(model: str, revision: str | None) -> str | None:
    """Return the checkpoint's name or folder if it can be opened without a download, else None."""
    if model == "demo" or Path(model).expanduser().exists():
        return model
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(model, revision=revision, local_files_only=True)
    except Exception:  # not cached, or no hub id at all: loading tells which
        return None
