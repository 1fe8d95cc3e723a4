"""The engine on llama.cpp: its own prefix cache and memory, all else as for other models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from minicpm_core.devices import available_memory, choose_device
from minicpm_core.engine import Engine
from minicpm_core.gguf.checkpoint import GgufCheckpoint, open_gguf, read_embedding_scale
from minicpm_core.gguf.header import GgufHeader
from minicpm_core.gguf.installation import check_installation
from minicpm_core.gguf.mmproj import load_projector
from minicpm_core.gguf.model import LastText, LlamaCppModel
from minicpm_core.gguf.tokenizer import read_tokenizer
from minicpm_core.memory_plan import LEAST_CHUNK, MIN_CONTEXT, RUNTIME_BYTES, MemoryPlan, refuse_if_too_large
from minicpm_core.picture_bytes import count_pictures
from minicpm_core.sizes import parse_bytes
from minicpm_core.threads import fit_threads

logger = logging.getLogger(__name__)

_CHUNK = 512
_SAMPLE = "Hello, world! It's 2026:  12345 km;\n\n  naïve café — 保修期为两年。\t<a href='x'>Ünïcode 🙂</a>"


class GgufEngine(Engine):
    """An engine whose logits come from llama.cpp.

    Prompts run one after another (`generate_batch` is a loop), and the last one is what the next can share with.
    """

    model: Any
    _batch_tokens = 0

    def __init__(self, checkpoint: GgufCheckpoint, model: LlamaCppModel, tokenizer: Any, memory: MemoryPlan) -> None:
        super().__init__(checkpoint, model, tokenizer, memory)
        self._prefixes = LastText()

    def set_adapter(self, name: str | None) -> None:
        """Refuse: adapters are not loaded beside a GGUF file.

        Raises:
            ValueError: always, unless `name` is None.
        """
        if name is not None:
            raise ValueError(_NO_ADAPTERS)

    def close(self) -> None:
        """Stop what runs, refuse what waits, and free the model's memory."""
        model = self.model
        super().close()
        if model is not None:
            model.close()


_NO_ADAPTERS = (
    "adapters are not loaded beside a GGUF file; merge them into the checkpoint first (minicpm_core.merge_adapter), "
    "then convert it"
)


def load_gguf(
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
) -> GgufEngine:
    """Load a GGUF file; the arguments are those of `load`.

    Raises:
        ImportError: llama-cpp-python is missing, or crashes on this machine.
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, an unknown family or tokenizer, or an argument that is not accepted.
        MemoryError: the model does not fit into `memory_limit`.
    """
    if adapter:
        raise ValueError(_NO_ADAPTERS)
    _refuse_formats(quantization, dtype)
    if revision is not None:
        raise ValueError(f"revision is {revision!r}; it belongs to a hub id, not to a file: leave it out")
    checkpoint = open_gguf(model, family)
    tokenizer = read_tokenizer(checkpoint)
    chosen = choose_device(device)
    limit = memory_limit if memory_limit is not None else available_memory(chosen)
    memory = plan_gguf(checkpoint, context_window, limit, device=chosen)
    refuse_if_too_large(memory, checkpoint.name)
    check_installation(checkpoint.header.path)
    offloads = chosen.startswith("cuda") and _offloads()
    if device.startswith("cuda") and not offloads:
        raise ValueError(f'device is {device!r}, but llama-cpp-python was built without CUDA here; use device="cpu"')
    import torch

    fit_threads()
    made = LlamaCppModel(
        checkpoint.header.path,
        context_window=memory.context_window,
        batch=memory.prefill_chunk,
        threads=torch.get_num_threads(),
        gpu_layers=-1 if offloads else 0,
    )
    if checkpoint.projector:
        made.sight = load_projector(checkpoint, made)
        made.feature_scale = read_embedding_scale(checkpoint.header)
    own, other = tokenizer.encode(_SAMPLE, add_special_tokens=False), made.tokenize(_SAMPLE)
    if own != other:
        logger.warning("%s: the tokenizer differs from llama.cpp's on a sample; %s, %s", model, own, other)
    return GgufEngine(checkpoint, made, tokenizer, memory)


def _refuse_formats(quantization: str | None, dtype: str) -> None:
    if quantization not in (None, "none", "auto"):
        raise ValueError(f"quantization is {quantization!r}; a GGUF file is used as it was quantised: leave it out")
    if dtype != "auto":
        raise ValueError(f"dtype is {dtype!r}; a GGUF file is computed in its own formats: leave it out")


def _offloads() -> bool:
    import llama_cpp

    return bool(llama_cpp.llama_supports_gpu_offload())


@dataclass(frozen=True)
class _Sizes:
    """What the cache and the buffers of llama.cpp grow with."""

    cache: int  # bytes per token
    vocabulary: int
    width: int

    @classmethod
    def read(cls, header: GgufHeader) -> _Sizes:
        layers, hidden = int(header.field("block_count")), int(header.field("embedding_length"))
        heads = int(header.field("attention.head_count", 1))
        kv = header.field("attention.head_count_kv", heads)
        every = sum(kv) if isinstance(kv, list) else int(kv) * layers
        key = int(header.field("attention.key_length", hidden // heads))
        value = int(header.field("attention.value_length", hidden // heads))
        wide = header.field("feed_forward_length", 4 * hidden)
        inner = max(wide) if isinstance(wide, list) else int(wide)
        vocabulary = header.tensors["token_embd.weight"][0]
        return cls(2 * every * (key + value), vocabulary, 4 * hidden + 3 * inner)


def plan_gguf(
    checkpoint: GgufCheckpoint, context_window: int | None, memory_limit: int | str | None, *, device: str = "cpu"
) -> MemoryPlan:
    """Return what a GGUF file needs: itself, a cache in 16 bits, llama.cpp's buffers for one pass, and its vision part.

    Args:
        checkpoint: the open file.
        context_window: tokens; None takes the model's own, or the largest that fits.
        memory_limit: bytes, or such as "4GiB".
        device: where it will run.

    Raises:
        ValueError: a context window that the model does not have.
    """
    header, projector = checkpoint.header, checkpoint.projector
    longest = int(header.field("context_length", 0)) or MIN_CONTEXT
    if context_window is not None and not 1 <= context_window <= longest:
        raise ValueError(f"context_window is {context_window}; this model accepts 1 to {longest} tokens")
    sizes, file = _Sizes.read(header), header.path.stat().st_size
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    hidden = int(header.field("embedding_length"))
    seeing = 4 * sum(map(prod, projector.tensors.values())) if projector else 0
    pictures = count_pictures(checkpoint, hidden, 4.0)

    def make(window: int, chunk: int) -> MemoryPlan:
        return MemoryPlan(
            linear_weights=file,
            table_weights=0,
            other_weights=seeing,
            kv_cache=sizes.cache * window,
            states=0,
            logits=4 * chunk * sizes.vocabulary,
            activations=4 * chunk * sizes.width,
            pictures=pictures.peak,
            picture_cache=pictures.cache,
            embeddings=0,
            runtime=RUNTIME_BYTES,
            context_window=window,
            prefill_chunk=chunk,
            limit=limit,
            device=device,
        )

    chunk = _CHUNK
    while chunk > LEAST_CHUNK and not make(context_window or min(longest, 8192), chunk).fits:
        chunk //= 2
    least = make(context_window or min(MIN_CONTEXT, longest), chunk)
    if context_window is not None or limit is None:
        return least if context_window is not None else make(longest, chunk)
    spare = max(limit - least.total, 0) // max(sizes.cache, 1)
    return make(min(least.context_window + spare, longest), chunk)


def plan_gguf_file(
    model: str | Path,
    *,
    quantization: str | None = None,
    context_window: int | None = None,
    memory_limit: int | str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> MemoryPlan:
    """Return what the file needs, from its head; arguments and errors are those of `load_gguf`."""
    _refuse_formats(quantization, dtype)
    return plan_gguf(open_gguf(model, None), context_window, memory_limit, device=choose_device(device))


def gguf_limits(
    model: str, device: str, memory_limit: int | str | None, context_window: int | None, family: str | None
) -> tuple[int, int | None]:
    """Return (context window, recommended length of an answer) in tokens, from the head of the file."""
    checkpoint, chosen = open_gguf(model, family), choose_device(device)
    limit = memory_limit if memory_limit is not None else available_memory(chosen)
    memory = plan_gguf(checkpoint, context_window, limit, device=chosen)
    return memory.context_window, checkpoint.family.sampling.max_new_tokens
