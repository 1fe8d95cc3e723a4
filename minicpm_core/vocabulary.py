"""A model's tokens as an answer meets them: those that end it, those that are no part of its text."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minicpm_core.guidance import GrammarTokenizer

if TYPE_CHECKING:
    from minicpm_core.checkpoints import Checkpoint
    from minicpm_core.families import Family


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, the lock around it, and what it is to an answer.

    Args:
        tokenizer: of transformers.
        lock: keeps other threads from it.
        stop_ids: tokens that end an answer.
        hidden_ids: special tokens that are no part of the text.
        grammar: the tokenizer for grammars.
    """

    tokenizer: Any
    lock: threading.Lock
    stop_ids: frozenset[int]
    hidden_ids: frozenset[int]
    grammar: GrammarTokenizer

    @classmethod
    def read(cls, checkpoint: Checkpoint, tokenizer: Any, lock: threading.Lock) -> Vocabulary:
        """Return a checkpoint's vocabulary, as its files and its family say."""
        stop_ids = _stop_ids(checkpoint, tokenizer)
        grammar = GrammarTokenizer(tokenizer, lock, sorted(stop_ids))
        return cls(tokenizer, lock, stop_ids, _hidden_ids(checkpoint.family, tokenizer), grammar)


def _stop_ids(checkpoint: Checkpoint, tokenizer: Any) -> frozenset[int]:
    ids: set[int] = set()
    for value in (checkpoint.config.get("eos_token_id"), checkpoint.generation_config.get("eos_token_id")):
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    vocabulary = tokenizer.get_vocab()
    ids.update(vocabulary[text] for text in checkpoint.family.stop_tokens if text in vocabulary)
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    return frozenset(ids)


def _hidden_ids(family: Family, tokenizer: Any) -> frozenset[int]:
    """Return the special tokens that are no part of an answer's text; those of reasoning and calls are read as text."""
    seen = family.dialect.write_calls([("f", {"x": "<", "y": 1})]) + "".join("".join(tags) for tags in family.tags)
    seen += "<ref></ref><box></box>"  # of texts with places (`ocr`)
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if token.special and token.content not in seen)
