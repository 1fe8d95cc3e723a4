"""What a model will need in memory, told from its config and file headers before a weight is read."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minicpm_core.checkpoints import Checkpoint, open_checkpoint
from minicpm_core.files import read_header
from minicpm_core.published import PublishedModel
from minicpm_core.quantization import UNQUANTIZED, choose_quantization, stored_kind
from minicpm_core.vision import tower_bytes

RUNTIME_BYTES = int(0.45 * 2**30)
"""Python with torch and transformers imported."""
PREFILL_CHUNK = 1024
"""Prompt tokens per forward pass."""
MIN_CONTEXT = 512
_BYTES_PER_WEIGHT = {None: 2.0, "int8": 1.01, "int4": 0.516}
"""nf4 with double quantisation: 4 bits, and 8 bits of scale for each 64 weights."""
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes per part, and the largest context window that fits into the limit."""

    weights: int
    kv_cache: int
    activations: int
    runtime: int
    context_window: int
    limit: int | None
    quantization: Literal["int4", "int8"] | None

    @property
    def total(self) -> int:
        """All parts together, in bytes."""
        return self.weights + self.kv_cache + self.activations + self.runtime

    @property
    def fits(self) -> bool:
        """Whether the total is within the limit."""
        return self.limit is None or self.total <= self.limit


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
) -> MemoryPlan:
    """Return what `model` needs, reading its config and file headers only.

    Args:
        model: folder, hub id or "demo".
        quantization: "int4", "int8", "none" or "auto".
        context_window: tokens; None takes the model's own, or the largest that fits `memory_limit`.
        memory_limit: bytes, or such as "4GiB".
    """
    return plan_checkpoint(open_checkpoint(model), quantization, context_window, memory_limit)


def plan_checkpoint(
    checkpoint: Checkpoint,
    quantization: str | None,
    context_window: int | None = None,
    memory_limit: int | str | None = None,
    *,
    bytes_per_value: float = 2.0,
) -> MemoryPlan:
    """Do the same for an open checkpoint; `bytes_per_value` is that of the dtype the model runs in."""
    config = checkpoint.family.translate(checkpoint.config).get_text_config()
    size = sum(f.stat().st_size for f in checkpoint.weight_files)
    stored = stored_kind(checkpoint.config)
    chosen = choose_quantization(quantization, weight_bytes=size, stored=stored)
    per_weight = _BYTES_PER_WEIGHT[chosen] if chosen else bytes_per_value
    weights = size if stored else _weight_bytes(checkpoint, per_weight, bytes_per_value)
    limit = parse_bytes(memory_limit) if memory_limit is not None else None
    seeing = tower_bytes(checkpoint.config, bytes_per_value) if checkpoint.family.vision else 0
    return plan_config(
        config, weights, chosen, context_window, limit, bytes_per_value=bytes_per_value, seeing_bytes=seeing
    )


def plan_published(
    model: PublishedModel, quantization: Literal["int4", "int8"] | None, limit: int | None
) -> MemoryPlan:
    """Do the same for a published checkpoint that need not be here."""
    weights = int(
        model.linear_weights * _BYTES_PER_WEIGHT[quantization] + model.other_weights * _BYTES_PER_WEIGHT[None]
    )
    return plan_config(model, weights, quantization, None, limit, bytes_per_value=2.0)


def plan_config(
    config: Any,
    weights: int,
    quantization: Literal["int4", "int8"] | None,
    context_window: int | None,
    limit: int | None,
    *,
    bytes_per_value: float,
    seeing_bytes: int = 0,
) -> MemoryPlan:
    """Return the plan for a shape and the bytes of its weights; `seeing_bytes` is the peak of a vision tower."""
    per_token = _kv_bytes(config, bytes_per_value)
    activations = max(_activation_bytes(config, bytes_per_value), seeing_bytes)  # one after the other
    longest = int(config.max_position_embeddings)
    if context_window is not None and not 1 <= context_window <= longest:
        raise ValueError(f"context_window is {context_window}; this model accepts 1 to {longest} tokens")
    window = context_window or longest
    if limit is not None and context_window is None:
        room = limit - weights - activations - RUNTIME_BYTES
        window = min(longest, max(room // per_token, min(MIN_CONTEXT, longest)))
    return MemoryPlan(weights, per_token * window, activations, RUNTIME_BYTES, int(window), limit, quantization)


def refuse_if_too_large(memory: MemoryPlan, name: str) -> None:
    """Raise MemoryError with the numbers, and what would help, when the plan exceeds its limit."""
    if memory.fits:
        return
    advice = ["a higher memory_limit"]
    if memory.quantization != "int4":
        advice.insert(0, 'quantization="int4"')
    if memory.context_window > MIN_CONTEXT:
        advice.insert(0, "a smaller context_window")
    raise MemoryError(
        f"{name} needs {gib(memory.total)} (weights {gib(memory.weights)}, context of {memory.context_window} tokens "
        f"{gib(memory.kv_cache)}, activations {gib(memory.activations)}, runtime {gib(memory.runtime)}) "
        f"and the limit is {gib(memory.limit or 0)}; what helps: {', '.join(advice)}, or a smaller model"
    )


def gib(size: int) -> str:
    """Return a size for people."""
    return f"{size / 2**30:.2f} GiB"


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


def _weight_bytes(checkpoint: Checkpoint, per_quantized: float, per_plain: float) -> int:
    total = 0.0
    for file in checkpoint.weight_files:
        if file.suffix != ".safetensors":  # a pickle tells its shapes only when it is read
            total += file.stat().st_size * per_quantized / 2
            continue
        for name, tensor in read_header(file).items():
            linear = len(tensor["shape"]) == 2 and not any(part in name for part in UNQUANTIZED)
            total += math.prod(tensor["shape"]) * (per_quantized if linear else per_plain)
    return int(total)


def _kv_bytes(config: Any, bytes_per_value: float) -> int:
    if rank := getattr(config, "kv_lora_rank", None):  # latents are kept; one layer's at a time is expanded
        latent = config.num_hidden_layers * (rank + config.qk_rope_head_dim)
        expanded = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
        return int((latent + expanded) * bytes_per_value)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    layers = sum(kind != "linear_attention" for kind in kinds)  # those keep a state that does not grow
    return int(2 * layers * config.num_key_value_heads * head_dim * bytes_per_value)


def _activation_bytes(config: Any, bytes_per_value: float) -> int:
    """Return the peak of one prefill pass: the MLP's three products, the residual stream, and one row of logits."""
    intermediate = getattr(config, "intermediate_size", None) or (
        config.shared_expert_intermediate_size + config.num_experts_per_tok * config.moe_intermediate_size
    )
    tokens = PREFILL_CHUNK * (3 * intermediate + 6 * config.hidden_size) * bytes_per_value
    return int(tokens + config.vocab_size * 4 * 2)
