"""From a checkpoint's name to an engine: what is checked, planned, read and refused on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from minicpm_core.adapters import attach as attach_adapters
from minicpm_core.adapters import find_adapters, find_beside
from minicpm_core.checkpoints import load_tokenizer, load_weights, open_checkpoint
from minicpm_core.devices import available_memory, choose_device, choose_dtype, limit_allocator
from minicpm_core.engine import Engine
from minicpm_core.gguf import is_gguf
from minicpm_core.memory import checkpoint_needs
from minicpm_core.memory_plan import refuse_if_too_large
from minicpm_core.quantization import bitsandbytes_config
from minicpm_core.sizes import parse_bytes
from minicpm_core.threads import fit_threads, keep_freed_memory


def load(
    model: str | Path,
    *,
    quantization: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    memory_limit: int | str | None = None,
    context_window: int | None = None,
    adapter: str | Path | Mapping[str, str | Path] | None = None,
    family: str | None = None,
    revision: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    max_waiting: int | None = None,
) -> Engine:
    """Load a MiniCPM checkpoint; no code from the checkpoint is run.

    Args:
        model: a folder in the hub's layout, a hub id such as "openbmb/MiniCPM5-1B", a *.gguf file, or "demo".
        quantization: "int4" (nf4, double quantisation), "int8", "none", or "auto" (int4 for weights above 1 GB).
        dtype: "auto" (as stored; on the CPU float32 below 200 MB, bfloat16 for float16), or a name such as "float32".
        device: "auto", "cpu", "cuda" or "cuda:N".
        memory_limit: bytes, or such as "4GiB": the context window is fitted to it, and what cannot fit is refused.
        context_window: tokens of prompt and answer together; None takes the model's own, or what fits the memory.
        adapter: a PEFT folder (LoRA), or several as {name: folder}; the first is active, `set_adapter` switches.
        family: a name of the family table, where the checkpoint is not recognised.
        revision: branch, tag or commit on the hub.
        base_url: of an OpenAI-compatible server, such as "http://localhost:8000/v1", to ask instead of loading; `model`
            is then the model's name there, and the memory is the server's, whatever `memory_limit` says.
        api_key: that server's key.
        max_waiting: requests that may wait for their turn besides the one that runs (default: 128); what comes beyond
            that is refused with a QueueFullError. Behind `base_url` the queue is the server's.

    Raises:
        FileNotFoundError: no such folder, or files are missing in it.
        ConnectionError: a hub id that could not be downloaded.
        ValueError: damaged files, an unknown family, or an argument that is not accepted.
        MemoryError: the model does not fit into `memory_limit`.
    """
    if base_url:
        from minicpm_core.server.engine import load_server

        return load_server(
            str(model),
            base_url=base_url,
            api_key=api_key,
            context_window=context_window,
            family=family,
            quantization=quantization,
            dtype=dtype,
            device=device,
            adapter=adapter,
            revision=revision,
            max_waiting=max_waiting,
        )
    if max_waiting is not None and (isinstance(max_waiting, bool) or max_waiting < 0):
        raise ValueError(f"max_waiting is {max_waiting!r}; accepted: 0 (nobody waits) or more")
    if api_key:
        raise ValueError("api_key goes with base_url; without a server to ask, leave it out")
    if is_gguf(model):
        from minicpm_core.gguf.engine import load_gguf

        engine: Engine = load_gguf(
            model,
            quantization=quantization,
            dtype=dtype,
            device=device,
            memory_limit=memory_limit,
            context_window=context_window,
            adapter=adapter,
            family=family,
            revision=revision,
        )
        return _with_queue(engine, max_waiting)
    checkpoint = open_checkpoint(model, family=family, revision=revision)
    adapters = find_adapters(adapter) if adapter else {}
    checkpoint = replace(checkpoint, beside=find_beside(adapters))
    checkpoint.weight_files  # noqa: B018  checked before torch is imported
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, checkpoint, chosen_device)
    limit = memory_limit if memory_limit is not None else available_memory(chosen_device)
    value = float(chosen_dtype.itemsize)
    needs = checkpoint_needs(checkpoint, quantization, limit, bytes_per_value=value, device=chosen_device)
    memory = needs.plan(context_window)
    refuse_if_too_large(memory, checkpoint.name, needs)
    if memory_limit is not None:
        limit_allocator(chosen_device, parse_bytes(memory_limit) - memory.runtime)
    quantized = memory.quantization and bitsandbytes_config(memory.quantization, compute_dtype=chosen_dtype)
    if chosen_device == "cpu":
        fit_threads()
        keep_freed_memory()
    tokenizer = load_tokenizer(checkpoint)
    vision = checkpoint.family.vision
    load_model = import_module(vision.module).load_model if vision else load_weights
    weights = load_model(checkpoint, dtype=chosen_dtype, device=chosen_device, quantization_config=quantized)
    adapted = attach_adapters(weights, adapters) if adapters else None
    return _with_queue(Engine(checkpoint, weights, tokenizer, memory, adapted), max_waiting)


def _with_queue(engine: Engine, max_waiting: int | None) -> Engine:
    if max_waiting is not None:
        engine._worker.max_waiting = max_waiting
    return engine
