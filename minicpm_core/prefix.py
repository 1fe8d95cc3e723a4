"""What prompts share with those before them is not computed again: the caches of the last requests, by their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from operator import itemgetter
from typing import Any

_LEAST = 8
"""Tokens worth taking over; the marks of the first turn alone are fewer."""
_MOST_KEPT = 8
"""Conversations that are remembered at once."""


class Prefixes:
    """Keeps the caches of the last requests, the one that was used longest ago going first.

    Args:
        tokens: that all caches, that of the running request included, may hold together; 0 keeps none.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._kept: list[Context] = []

    def open(self, model: Any, ids: Sequence[int]) -> Context:
        """Return a context that has read what `ids` share with a request before.

        All of a prompt are shared with the same prompt only; of others, the last is read anew for its logits.

        Args:
            model: a language model of transformers.
            ids: the prompt's token ids, or other numbers that tell its tokens apart.
        """
        common, kept = max(((kept.share(ids), kept) for kept in self._kept), key=itemgetter(0), default=(0, None))
        if kept is None or common < _LEAST:
            return Context(model, self)
        if not kept.can_rewind:
            return kept.copy()
        self._kept.remove(kept)
        if common < len(kept.ids):  # else the new request goes on where the old one ended, and replaces it
            self._kept.append(kept)
        return kept.branch(common)

    def keep(self, context: Context) -> None:
        """Remember what a request has read."""
        ids = context.ids
        if not context.can_rewind or context.skipped or any(shared(kept.ids, ids) == len(ids) for kept in self._kept):
            return
        others = [kept for kept in self._kept if shared(kept.ids, ids) < len(kept.ids)]
        self._kept = [*others, context][-_MOST_KEPT:]
        self.make_room(0)

    def keep_copy(self, context: Context) -> None:
        """Remember what a model that cannot go back has read so far; one such is kept, for its states take room."""
        self._kept = [kept for kept in self._kept if kept.can_rewind]
        if 2 * len(context.ids) <= self._tokens:
            self._kept.append(context.copy())
            self.make_room(len(context.ids))

    def make_room(self, tokens: int) -> None:
        """Forget the oldest requests until a running one can hold so many tokens."""
        while self._kept and sum(len(kept.ids) for kept in self._kept) + tokens > self._tokens:
            del self._kept[0]

    def clear(self) -> None:
        """Forget everything; for when the model computes something else from now on."""
        self._kept.clear()


class Context:
    """What a model has read in a request: the tokens, and their keys and values.

    It is a context manager that gives itself to `Prefixes` at its end, unless the model failed.
    """

    def __init__(self, model: Any, prefixes: Prefixes) -> None:
        from transformers import DynamicCache

        self.ids: list[int] = []
        self.prompt: tuple[int, Any] = (0, None)  # length of the last whole prompt, and the logits behind it
        self.skipped = 0  # positions that pictures take beyond their tokens
        self._model, self._prefixes = model, prefixes
        self._cache = DynamicCache(config=model.config)
        self.can_rewind = can_rewind(model.config, self._cache)

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or kind is GeneratorExit:  # an error may have left some layers further than others
            self._prefixes.keep(self)

    def read(self, ids: Sequence[int], inputs: dict[str, Any] | None = None, *, rows: int = 1) -> Any:
        """Let the model read on, and return the logits of the last `rows` tokens, [rows, vocabulary].

        Args:
            ids: what tells the tokens apart.
            inputs: what the model reads, where that is not the ids themselves.
            rows: positions whose logits are wanted.
        """
        import torch

        inputs = inputs or {"input_ids": torch.tensor([ids], device=self._model.device)}
        if self.skipped and "position_ids" not in inputs:
            first = len(self.ids) + self.skipped
            inputs["position_ids"] = torch.arange(first, first + len(ids), device=self._model.device)[None]
        self._prefixes.make_room(len(self.ids) + len(ids))
        out = self._model(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=rows)
        self.ids += ids
        return out.logits[0]

    def forget(self, count: int) -> None:
        """Take back the last `count` tokens; only where `can_rewind`."""
        if count:
            self._cache.crop(-count)
            del self.ids[-count:]

    def share(self, ids: Sequence[int]) -> int:
        """Return how many of a prompt's tokens can be taken over; its last one where the logits behind it are known."""
        if not self.can_rewind:
            return len(self.ids) if len(self.ids) < len(ids) and shared(self.ids, ids) == len(self.ids) else 0
        return min(shared(self.ids, ids), len(ids) - (self.prompt[0] != len(ids)))

    def copy(self) -> Context:
        """Return another context that has read the same, with a cache of its own."""
        copy = Context(self._model, self._prefixes)
        copy.ids, copy.skipped, copy._cache = list(self.ids), self.skipped, deepcopy(self._cache)
        return copy

    def branch(self, length: int) -> Context:
        """Return another context that has read the first `length` tokens; it copies nothing before it reads on."""
        branch = Context(self._model, self._prefixes)
        branch.ids = self.ids[:length]
        if self.prompt[0] <= length:
            branch.prompt = self.prompt
        for old, new in zip(self._cache.layers, branch._cache.layers, strict=True):
            new.lazy_initialization(old.keys, old.values)
            new.keys, new.values = old.keys[..., :length, :], old.values[..., :length, :]
        return branch


def can_rewind(config: Any, cache: Any) -> bool:
    """Tell whether the cache can go back to any token: each has keys and values that later tokens do not change."""
    from transformers.cache_utils import DynamicLayer

    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type")
    switches = (
        kind == "longrope"
        and rope["short_factor"] != rope["long_factor"]
        and config.max_position_embeddings > rope["original_max_position_embeddings"]
    )
    return not switches and kind != "dynamic" and all(type(layer) is DynamicLayer for layer in cache.layers)


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many items the beginnings of both have in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(first), len(second)))
