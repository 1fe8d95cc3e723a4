"""The engine: one model, one token stream, any number of callers."""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from minicpm_core.adapters import attach as attach_adapters
from minicpm_core.adapters import find_adapters, find_beside
from minicpm_core.adapters import switch as switch_adapter
from minicpm_core.checkpoints import Checkpoint, load_tokenizer, load_weights, open_checkpoint
from minicpm_core.decoding import OPEN_THINK
from minicpm_core.devices import choose_device, choose_dtype
from minicpm_core.generation import Request, generate_chunks
from minicpm_core.memory import MemoryPlan, available_memory, plan_checkpoint, refuse_if_too_large
from minicpm_core.messages import check_messages
from minicpm_core.quantization import bitsandbytes_config
from minicpm_core.templates import render_template
from minicpm_core.types import Chunk, Message, Prompt, Sampling
from minicpm_core.vision.prompt import Pictures, take_pictures
from minicpm_core.worker import Worker


class Engine:
    """A loaded model that answers messages with a stream of chunks.

    Callers in any number of threads and asyncio tasks share it: requests run one after another, in order of arrival.
    Leaving a stream early stops the model within one token.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: Any, tokenizer: Any, memory: MemoryPlan, adapted: Any = None
    ) -> None:
        self.checkpoint = checkpoint
        self.family = checkpoint.family
        vision = checkpoint.family.vision
        self._reader = import_module(vision.module).load_pictures(checkpoint) if vision else None
        self.model = model
        self._adapted = adapted  # PEFT's handle on the adapters inside the model
        self.tokenizer = tokenizer
        self.context_window = memory.context_window
        self._memory = memory
        self._stop_ids = _stop_ids(checkpoint, tokenizer)
        self._tokenizer_lock = threading.Lock()  # fast tokenizers are not safe to share between threads
        self._worker = Worker(checkpoint.name)
        self._close = weakref.finalize(self, self._worker.close)

    def stream(self, messages: Prompt, **options: Any) -> Iterator[Chunk]:
        """Yield the answer piece by piece; the last chunk has finish_reason and usage.

        Args:
            messages: chat messages (dicts with "role" and "content"), or a string that is completed as it stands.
            **options: see `generate`.

        Raises:
            ValueError: the prompt is longer than the context window, or an option is not accepted.
        """
        request = self.prepare(messages, **options)

        def run() -> Iterator[Chunk]:
            with closing(self._worker.stream(lambda cancelled: self._generate(request, cancelled))) as chunks:
                yield from chunks

        return run()

    def astream(self, messages: Prompt, **options: Any) -> AsyncIterator[Chunk]:
        """Do what `stream` does without blocking the event loop."""

        async def run() -> AsyncIterator[Chunk]:
            import asyncio

            request = await asyncio.to_thread(self.prepare, messages, **options)
            stream = self._worker.astream(lambda cancelled: self._generate(request, cancelled))
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    yield chunk

        return run()

    def generate(
        self,
        messages: Prompt,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = "auto",
        response_schema: Any = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] | None = None,
        enable_thinking: bool | None = None,
    ) -> Chunk:
        """Return the whole answer: the sum of `stream`.

        Args:
            messages: chat messages (dicts with "role" and "content"), or a string that is completed as it stands.
            tools: not supported yet; anything but None or an empty list is refused.
            tool_choice: used with `tools` only.
            response_schema: not supported yet; anything but None is refused.
            sampling: values that are None are the family's recommendation.
            stop: texts that end the answer; they are not part of it. The reasoning part is not searched.
            enable_thinking: switches reasoning on or off where the family has it; None leaves it to the chat template.

        Raises:
            ValueError: the prompt is longer than the context window, or an option is not accepted.
        """
        options = {"tools": tools, "tool_choice": tool_choice, "response_schema": response_schema, "stop": stop}
        return sum_chunks(self.stream(messages, sampling=sampling, enable_thinking=enable_thinking, **options))

    async def agenerate(self, messages: Prompt, **options: Any) -> Chunk:
        """Do what `generate` does without blocking the event loop."""
        answer = Chunk()
        async for chunk in self.astream(messages, **options):
            answer += chunk
        return answer

    def prepare(
        self,
        messages: Prompt,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = "auto",
        response_schema: Any = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] | None = None,
        enable_thinking: bool | None = None,
    ) -> Request:
        """Check the options and encode the prompt; what `stream` runs."""
        if tools or response_schema is not None or tool_choice not in ("auto", "none", None):
            raise ValueError("tools, tool_choice and response_schema are not supported by this version; leave them out")
        if isinstance(stop, str):
            raise ValueError(f"stop is the string {stop!r}; give a list of strings")
        if enable_thinking and not self.family.thinking:
            raise ValueError(f"family {self.family.name} has no thinking mode; leave enable_thinking out")
        text, prompt_ids, pictures = self._encode(messages, enable_thinking)
        room = self.context_window - len(prompt_ids)
        if room < 1:
            raise ValueError(
                f"the prompt has {len(prompt_ids)} tokens and the context window {self.context_window}, of which one "
                "must be left for the answer; shorten the prompt, or load with a larger context_window or memory_limit"
            )
        family = self.family
        defaults = (family.thinking_sampling if enable_thinking else None) or family.sampling
        chosen = (sampling or Sampling()).over(defaults)
        chosen = replace(chosen, max_new_tokens=min(chosen.max_new_tokens or room, room))
        opened = self.family.thinking and text.rstrip().endswith(OPEN_THINK)
        return Request(tuple(prompt_ids), chosen, tuple(stop or ()), opened, pictures)

    def encode(self, messages: Prompt, *, enable_thinking: bool | None = None) -> list[int]:
        """Return the prompt's token ids, BOS included where the family begins with it."""
        return self._encode(messages, enable_thinking)[1]

    def _encode(self, messages: Prompt, enable_thinking: bool | None) -> tuple[str, list[int], Pictures | None]:
        """Return the prompt's text, token ids and pictures."""
        text, pictures = (messages, None) if isinstance(messages, str) else self._render(messages, enable_thinking)
        ids = self.tokenize(text)
        bos = self.tokenizer.bos_token_id
        added = self.family.add_bos and bos is not None and ids[:1] != [bos]
        if pictures:
            with self._tokenizer_lock:
                encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            pictures = pictures.at_tokens(encoded["offset_mapping"], shift=int(added))
        return text, [bos, *ids] if added else ids, pictures

    def render(self, messages: Sequence[Message], *, enable_thinking: bool | None = None) -> str:
        """Return the prompt text that the chat template makes of the messages."""
        return self._render(messages, enable_thinking)[0]

    def _render(self, messages: Sequence[Message], enable_thinking: bool | None) -> tuple[str, Pictures | None]:
        checked = check_messages(messages, vision=self._reader is not None)
        options = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        marked = take_pictures(checked, self._reader) if self._reader else None
        with self._tokenizer_lock:
            text = render_template(self.tokenizer, marked.messages if marked else checked, **options)
        return marked.insert_into(text) if marked else (text, None)

    def count_tokens(self, text: str | Sequence[Message]) -> int:
        """Return the number of tokens of a text as it stands, or of messages with the chat template around them."""
        return len(self.tokenize(text) if isinstance(text, str) else self.encode(text))

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text as it stands, nothing added."""
        with self._tokenizer_lock:
            return list(self.tokenizer.encode(text, add_special_tokens=False))

    def memory_report(self) -> dict[str, int]:
        """Return bytes by part: the plan's, and under "parameters" what the weights take in fact."""
        parts = {
            name: getattr(self._memory, name) for name in ("weights", "kv_cache", "activations", "runtime", "total")
        }
        return parts | {"parameters": int(self.model.get_memory_footprint())}

    def set_adapter(self, name: str | None) -> None:
        """Use the adapter `name` from the next request on; None turns adapters off.

        Raises:
            ValueError: no adapter of that name was loaded.
        """

        def switch(cancelled: threading.Event) -> Iterator[Chunk]:
            switch_adapter(self._adapted, name)
            return iter(())

        for _ in self._worker.stream(switch):  # in its turn, so that no answer is begun with one and ended with another
            pass

    def close(self) -> None:
        """Stop what runs, refuse what waits, and free the model's memory."""
        self._close()
        self.model = self._adapted = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _generate(self, request: Request, cancelled: threading.Event) -> Iterator[Chunk]:
        return generate_chunks(
            self.model, self.tokenizer, self._tokenizer_lock, self.family, self._stop_ids, request, cancelled
        )


def sum_chunks(chunks: Iterator[Chunk]) -> Chunk:
    """Return the whole that the chunks add up to."""
    return sum(chunks, Chunk())


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
) -> Engine:
    """Load a MiniCPM checkpoint; no code from the checkpoint is run.

    Args:
        model: a folder in the hub's layout, a hub id such as "openbmb/MiniCPM5-1B", or "demo".
        quantization: "int4" (nf4, double quantisation), "int8", "none", or "auto" (int4 for weights above 1 GB).
        dtype: "auto" (as stored; on the CPU float32 below 200 MB, bfloat16 for float16), or a name such as "float32".
        device: "auto", "cpu", "cuda" or "cuda:N".
        memory_limit: bytes, or such as "4GiB": the context window is fitted to it, and what cannot fit is refused.
        context_window: tokens of prompt and answer together; None takes the model's own, or what fits the memory.
        adapter: a PEFT folder (LoRA), or several as {name: folder}; the first is active, `set_adapter` switches.
        family: a name of the family table, where the checkpoint is not recognised.
        revision: branch, tag or commit on the hub.
        base_url: not supported yet.
        api_key: not supported yet.

    Raises:
        FileNotFoundError: no such folder, or files are missing in it.
        ConnectionError: a hub id that could not be downloaded.
        ValueError: damaged files, an unknown family, or an argument that is not accepted.
        MemoryError: the model does not fit into `memory_limit`.
    """
    if unsupported := [n for n, v in (("base_url", base_url), ("api_key", api_key)) if v]:
        raise ValueError(f"{', '.join(unsupported)}: not supported by this version; leave out")
    checkpoint = open_checkpoint(model, family=family, revision=revision)
    adapters = find_adapters(adapter) if adapter else {}
    checkpoint = replace(checkpoint, beside=find_beside(adapters))
    checkpoint.weight_files  # noqa: B018  checked before torch is imported
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, checkpoint, chosen_device)
    limit = memory_limit if memory_limit is not None else available_memory(chosen_device)
    memory = plan_checkpoint(
        checkpoint, quantization, context_window, limit, bytes_per_value=float(chosen_dtype.itemsize)
    )
    refuse_if_too_large(memory, checkpoint.name)
    quantized = memory.quantization and bitsandbytes_config(memory.quantization, compute_dtype=chosen_dtype)
    tokenizer = load_tokenizer(checkpoint)
    vision = checkpoint.family.vision
    load_model = import_module(vision.module).load_model if vision else load_weights
    weights = load_model(checkpoint, dtype=chosen_dtype, device=chosen_device, quantization_config=quantized)
    adapted = attach_adapters(weights, adapters) if adapters else None
    return Engine(checkpoint, weights, tokenizer, memory, adapted)


def _stop_ids(checkpoint: Checkpoint, tokenizer: Any) -> frozenset[int]:
    ids: set[int] = set()
    for value in (checkpoint.config.get("eos_token_id"), checkpoint.generation_config.get("eos_token_id")):
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    vocabulary = tokenizer.get_vocab()
    ids.update(vocabulary[text] for text in checkpoint.family.stop_tokens if text in vocabulary)
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    return frozenset(ids)
