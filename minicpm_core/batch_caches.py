"""What the rows of a batch have read: keys and values of each row for itself, or of all rows behind padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

_APART = "minicpm_rows_apart"
"""The name under which transformers finds `_attend_apart`."""


class BatchCache(Protocol):
    """Reads tokens into the model for several rows; logits are [rows, vocabulary]."""

    def read_prompts(self, prompts: Sequence[Sequence[int]], begun: Sequence[Sequence[int]]) -> Iterator[Any]:
        """Read the prompts, and the tokens that their answers begin with; the last thing yielded are the logits."""
        ...

    def read(self, tokens: Sequence[int]) -> Any:
        """Read one token per row, and return the logits behind them."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        ...


def open_cache(model: Any, prefill_chunk: int) -> BatchCache:
    """Return the cache that suits the model.

    On the CPU rows are kept apart, so that a row is computed as it would be alone; not where attention expands what the
    cache holds, or has a state instead. On a GPU, where each call of a kernel costs, and its blocks depend on the
    number of rows anyway, rows are padded.
    """
    from minicpm_core.working_memory import Shape

    shape = Shape.read(model.config)
    plain = not (shape.latent or shape.linear) and model.config._attn_implementation == "sdpa"
    kind = SeparateCaches if plain and model.device.type == "cpu" else PaddedCache
    return kind(model, prefill_chunk)


class SeparateCaches:
    """A cache per row: prompts are read one after another, and attention goes row by row.

    A row's numbers are then those of a single run in every bit, as far as the linear layers compute each row alike
    whatever their number; those of `int4` do, up to 28 rows.
    """

    def __init__(self, model: Any, prefill_chunk: int) -> None:
        self._model, self._chunk = model, prefill_chunk
        self._caches: list[Any] = []

    def read_prompts(self, prompts: Sequence[Sequence[int]], begun: Sequence[Sequence[int]]) -> Iterator[Any]:
        """Read prompt by prompt, in the passes of a single run; see `BatchCache`."""
        import torch
        from transformers import DynamicCache

        logits = []
        for prompt, first in zip(prompts, begun, strict=True):
            self._caches.append(DynamicCache(config=self._model.config))
            parts = [prompt[start : start + self._chunk] for start in range(0, len(prompt), self._chunk)]
            for part in [*parts, first] if first else parts:
                yield None
                out = self._run(torch.tensor([part], device=self._model.device), self._caches[-1])
            logits.append(out[:, -1])
        yield torch.cat(logits)

    def read(self, tokens: Sequence[int]) -> Any:
        """Read one token per row; see `BatchCache`."""
        import torch

        device = self._model.device
        ids = torch.tensor(tokens, device=device)[:, None]
        positions = torch.tensor([cache.get_seq_length() for cache in self._caches], device=device)[:, None]
        with _apart(self._model.config):
            return self._run(ids, _Rows(self._caches), position_ids=positions)[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        self._caches = [self._caches[n] for n in rows]

    def _run(self, ids: Any, cache: Any, **more: Any) -> Any:
        return self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **more).logits


class PaddedCache:
    """One cache for all rows; the padding is on the left and masked."""

    def __init__(self, model: Any, prefill_chunk: int) -> None:
        from transformers import DynamicCache

        self._model, self._chunk = model, prefill_chunk
        self._cache, self._width = DynamicCache(config=model.config), 0
        self._pads: Any = None

    def read_prompts(self, prompts: Sequence[Sequence[int]], begun: Sequence[Sequence[int]]) -> Iterator[Any]:
        """Read all prompts together, `prefill_chunk` tokens of all rows at a time; see `BatchCache`."""
        import torch

        texts = [[*prompt, *first] for prompt, first in zip(prompts, begun, strict=True)]
        width, device = max(map(len, texts)), self._model.device
        self._pads = torch.tensor([width - len(text) for text in texts], device=device)
        ids = torch.tensor([[0] * (width - len(text)) + text for text in texts], device=device)
        chunk = max(self._chunk // len(texts), 32)
        logits = None
        for start in range(0, width, chunk):
            yield None
            logits = self._run(ids[:, start : start + chunk])
        yield logits

    def read(self, tokens: Sequence[int]) -> Any:
        """Read one token per row; see `BatchCache`."""
        import torch

        return self._run(torch.tensor(tokens, device=self._model.device)[:, None])

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        import torch

        chosen = torch.tensor(rows, device=self._model.device)
        self._cache.batch_select_indices(chosen)
        self._pads = self._pads[chosen]

    def _run(self, ids: Any) -> Any:
        """Return the logits of the last position; a row's positions begin with 0 behind its padding."""
        import torch

        start, self._width = self._width, self._width + ids.shape[1]
        places = torch.arange(self._width, device=ids.device)[None]
        mask = (places >= self._pads[:, None]).long()
        positions = (places[:, start:] - self._pads[:, None]).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return self._model(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits[:, -1]


class _Rows:
    """Stands for a cache of transformers towards the model: what it returns of each row goes to `_attend_apart`."""

    is_compileable = False

    def __init__(self, caches: Sequence[Any]) -> None:
        self._caches = caches

    def update(self, keys: Any, values: Any, layer: int, *_: Any, **__: Any) -> tuple[list[Any], list[Any]]:
        """Add each row's [heads, 1, width], and return what its own cache holds."""
        pairs = [cache.update(keys[n : n + 1], values[n : n + 1], layer) for n, cache in enumerate(self._caches)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def get_seq_length(self, layer: int = 0) -> int:
        """Return the tokens of the longest row; positions are given, so that nothing else depends on it."""
        return max(int(cache.get_seq_length(layer)) for cache in self._caches)


def _attend_apart(
    module: Any, query: Any, key: list[Any], value: list[Any], attention_mask: Any, **options: Any
) -> tuple[Any, None]:
    """Attend row by row with transformers' function for `scaled_dot_product_attention`; one query per row, no mask."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows = zip(query.split(1), key, value, strict=True)
    return torch.cat([sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in rows]), None


@contextmanager
def _apart(config: Any) -> Iterator[None]:
    """Let the model with this config attend by `_attend_apart`; for an unknown name, transformers makes no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(_APART, _attend_apart)
    before = config._attn_implementation
    config._attn_implementation = _APART
    try:
        yield
    finally:
        config._attn_implementation = before
