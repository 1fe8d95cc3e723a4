"""Which tokens may come next: all of them, or those that a grammar allows (llguidance)."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minicpm_core.decoding import ReasoningSplitter
    from minicpm_core.sampler import Sampler

_WINDOW = 32
"""Tokens in which the opening of a call is looked for; every token has a byte at least."""
_REASONING_SHARE = 0.5
"""Of the tokens left, what reasoning may use where an answer must follow a grammar."""


@dataclass(frozen=True)
class Constraint:
    """What an answer has to follow.

    Args:
        write: makes the grammar (Lark, as llguidance reads it) for answers of about so many tokens.
        opening: the text with which the grammar comes into force; None for the answer's first token.
        forbidden: the opening must not come at all.
        reserve: the answer ends, wherever the grammar lets it, as soon as fewer than so many tokens are left.
    """

    write: Callable[[int], str]
    opening: str | None = None
    forbidden: bool = False
    reserve: int = 0


class GrammarTokenizer:
    """A tokenizer as llguidance needs it, and grammars compiled with it; made at first use, shared by all requests."""

    def __init__(self, tokenizer: Any, lock: threading.Lock, stop_ids: Sequence[int]) -> None:
        self._tokenizer, self._lock = tokenizer, lock
        self._stop_ids = sorted(i for i in stop_ids if i < len(tokenizer))
        self._made: Any = None
        self._special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._parts = re.compile("|".join(map(re.escape, sorted(self._special, key=len, reverse=True))) or "(?!)")

    @property
    def made(self) -> Any:
        """The LLTokenizer."""
        if self._made is None:
            from llguidance import LLTokenizer

            with self._lock:
                if self._made is None:
                    text = _hide_special(self._tokenizer.backend_tokenizer.to_str())
                    self._made = LLTokenizer(text, n_vocab=len(self._tokenizer), eos_token=self._stop_ids)
        return self._made

    @property
    def stop_id(self) -> int:
        """A token that ends an answer."""
        return self._stop_ids[0]

    def marker(self, text: str) -> str:
        """Return the Lark expression of a marker: the special token that it is, or else its characters."""
        return f"<[{self._special[text]}]>" if text in self._special else json.dumps(text, ensure_ascii=False)

    def compile(self, grammar: str) -> Any:
        """Return a matcher at the beginning of the grammar.

        Raises:
            ValueError: llguidance cannot use the grammar.
        """
        from llguidance import LLMatcher

        matcher = LLMatcher(self.made, grammar, log_level=0)
        if matcher.is_error():
            reason = matcher.get_error().strip().splitlines()
            which = "the given one, or that of the tools or the schema"
            raise ValueError(f"the grammar ({which}) cannot be used: {reason[0] if reason else '?'}")
        return matcher

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, special tokens included."""
        ids: list[int] = []
        at = 0
        for match in self._parts.finditer(text):
            ids += [*self.made.tokenize_str(text[at : match.start()]), self._special[match[0]]]
            at = match.end()
        return ids + list(self.made.tokenize_str(text[at:]))

    def read_bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for, of a special token those of its name."""
        if token in self._special.values():
            return self.decode([token]).encode()
        return bytes(self.made.decode_bytes([token]))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included."""
        with self._lock:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


class Guide:
    """Chooses an answer's tokens: freely at first where the constraint has an opening, then as the grammar allows.

    Args:
        constraint: None lets the model choose everything.
        tokenizer: made once per engine.
        reasoning: tells whether the answer is inside its reasoning, which follows no grammar.
        budget: tokens that the answer may have.
        fast_forward: appends the tokens that the grammar forces without asking the model.
    """

    def __init__(
        self,
        constraint: Constraint | None,
        tokenizer: GrammarTokenizer,
        reasoning: ReasoningSplitter,
        budget: int,
        *,
        fast_forward: bool = True,
    ) -> None:
        self._constraint, self._tokenizer, self._reasoning = constraint, tokenizer, reasoning
        self._left, self._reserve = budget, int(budget * _REASONING_SHARE)
        self._fast_forward = fast_forward
        self._matcher: Any = None
        self._recent: list[int] = []
        self._waits = False  # the grammar begins with the answer, or with the end of its reasoning
        self.forced_tokens = 0
        self.is_cut = False  # the answer was ended for want of tokens

    @property
    def ended(self) -> bool:
        """Whether the grammar allows nothing more."""
        return self._matcher is not None and bool(self._matcher.is_stopped())

    def begin(self) -> list[int]:
        """Return the tokens with which the answer must begin."""
        self._waits = self._constraint is not None and self._constraint.opening is None
        return self._open() or [] if self._waits and not self._reasoning.in_reasoning else []

    def choose(self, sampler: Sampler, logits: Any) -> list[int]:
        """Return the next token and those that are forced to follow it.

        Args:
            sampler: draws from what is allowed.
            logits: of one position, [vocabulary].
        """
        if self._matcher is not None:
            chosen = self._draw_allowed(sampler, logits)
        elif self._constraint is None or (self._reasoning.in_reasoning and not self._waits):
            chosen = [sampler.draw(logits)]
        elif self._waits:
            chosen = self._draw_reasoning(sampler, logits)
        else:
            chosen = self._draw_free(sampler, logits, self._constraint)
        for token in chosen:
            sampler.accept(token)
        self._left -= len(chosen)
        return chosen

    def _draw_reasoning(self, sampler: Sampler, logits: Any) -> list[int]:
        """Draw freely; end the reasoning where the answer would lack room. Behind it the grammar begins."""
        token, tag = sampler.draw(logits), self._reasoning.closing
        closed = tag in self._tokenizer.decode([*self._recent, token])
        if not closed and self._left > self._reserve:
            self._recent = [*self._recent, token][-_WINDOW:]
            return [token]
        end = self._tokenizer.encode("\n\n" if closed else f"\n{tag}\n\n")
        tail = [token, *end] if closed else end
        self._left -= len(tail)
        forced = self._open() or []
        self._left += len(tail)
        self.forced_tokens += len(tail) - 1
        return tail + forced

    def _draw_free(self, sampler: Sampler, logits: Any, constraint: Constraint) -> list[int]:
        """Draw one token; where it completes the opening, the grammar goes on."""
        token = sampler.draw(logits)
        before = self._tokenizer.decode(self._recent)
        text = self._tokenizer.decode([*self._recent, token])
        opening = constraint.opening or ""
        at = text.find(opening, max(0, len(before) - len(opening) + 1))
        if at < 0:
            self._recent = [*self._recent, token][-_WINDOW:]
            return [token]
        if constraint.forbidden:
            logits = logits.clone()
            logits[token] = float("-inf")
            return self._draw_free(sampler, logits, constraint)
        forced = self._open(text[at:])
        if forced is not None:
            return [token, *forced]
        self._open(before[at:])  # no call goes on as this token does: draw again from those that do
        return self._draw_allowed(sampler, logits)

    def _draw_allowed(self, sampler: Sampler, logits: Any) -> list[int]:
        import numpy as np
        import torch

        if self._constraint and self._left < self._constraint.reserve and self._matcher.is_accepting():
            self.is_cut = True
            return [self._tokenizer.stop_id]
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little", count=logits.shape[-1]).astype(bool)
        token = sampler.draw(logits, torch.from_numpy(allowed).to(logits.device))
        self._matcher.consume_token(token)
        self._check()
        return [token, *self._take_forced()]

    def _open(self, begun: str = "") -> list[int] | None:
        """Start the grammar behind the text `begun`; return forced tokens, None where the text does not fit."""
        assert self._constraint is not None
        matcher = self._tokenizer.compile(self._constraint.write(max(self._left, 1)))
        ids = self._tokenizer.encode(begun) if begun else []
        if matcher.try_consume_tokens(ids) < len(ids):
            return None
        self._matcher = matcher
        return self._take_forced()

    def _take_forced(self) -> list[int]:
        """Return the tokens that are the only way on, already taken by the matcher."""
        if not self._fast_forward or self._matcher.is_stopped():
            return []
        forced = list(self._matcher.compute_ff_tokens())
        if forced:
            self._matcher.consume_tokens(forced)
        self._check()
        self.forced_tokens += len(forced)
        return forced

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RuntimeError(f"the grammar could not be followed: {self._matcher.get_error()}")


def _hide_special(tokenizer: str) -> str:
    """Return a tokenizer's JSON with other names for its special tokens.

    llguidance writes forced text that spells a special token as that token, which ends the turn or vanishes; under a
    name that no text holds it is only reached by its id.
    """
    given = json.loads(tokenizer)
    vocabulary = given["model"].get("vocab")
    for token in given["added_tokens"]:
        if token["special"]:
            hidden = f"\ue000{token['id']}\ue001"
            if isinstance(vocabulary, dict) and token["content"] in vocabulary:
                vocabulary[hidden] = vocabulary.pop(token["content"])
            token["content"] = hidden
    given |= {"post_processor": None, "padding": None, "truncation": None}
    return json.dumps(given)
