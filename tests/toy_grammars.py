"""Random walks through the grammar of a dialect, with the demo checkpoint's tokenizer or with single bytes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
from llguidance import LLMatcher
from transformers import PreTrainedTokenizerFast

from minicpm_core.dialects import CallReader, Dialect
from minicpm_core.tools import Tool
from minicpm_core.types import ToolCall

DEMO = Path(__file__).parents[1] / "minicpm_core" / "demo"


@dataclass(frozen=True)
class Tokens:
    """A tokenizer for walks: llguidance's, and the special tokens' texts by id."""

    guidance: Any
    special: dict[int, str]
    size: int

    def marker(self, text: str) -> str:
        for number, special in self.special.items():
            if special == text:
                return f"<[{number}]>"
        return json.dumps(text)

    def encode(self, text: str, grammar: str) -> list[int]:
        """Return tokens, special ones only where the grammar has them."""
        used = {text for number, text in self.special.items() if f"<[{number}]>" in grammar}
        numbers = {text: number for number, text in self.special.items()}
        parts = re.split("(" + "|".join(map(re.escape, sorted(used))) + ")", text) if used else [text]
        ids = []
        for part in parts:
            ids += [numbers[part]] if part in used else self.guidance.tokenize_str(part) if part else []
        return ids

    def decode(self, ids: list[int]) -> bytes:
        return b"".join(
            self.special[number].encode() if number in self.special else self.guidance.decode_bytes([number])
            for number in ids
        )


@cache
def demo_tokens() -> Tokens:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO)
    special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    # llguidance takes forced text that spells a special token for that token, then refuses it: hide the names.
    given = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in given["added_tokens"]:
        hidden = f"\ue000{token['id']}\ue000"
        given["model"]["vocab"][hidden] = given["model"]["vocab"].pop(token["content"], token["id"])
        token["content"] = hidden
    size = len(tokenizer)
    guidance = llguidance.LLTokenizer(json.dumps(given), n_vocab=size, eos_token=tokenizer.eos_token_id)
    return Tokens(guidance, special, size)


@cache
def byte_tokens() -> Tokens:
    guidance = llguidance.LLTokenizer("byte")
    return Tokens(guidance, {}, guidance.vocab_size)


def grammar_of(dialect: Dialect, tools: tuple[Tool, ...], tokens: Tokens, room: int, parallel: bool) -> str:
    return "start: calls\n" + dialect.grammar(tools, room=room, parallel=parallel, marker=tokens.marker)


def accepted(grammar: str, text: str, tokens: Tokens) -> str:
    """Return "" when the grammar accepts the text, else the text up to where it does not."""
    matcher = LLMatcher(tokens.guidance, grammar)
    assert not matcher.is_error(), matcher.get_error()
    ids = tokens.encode(text, grammar)
    count = matcher.try_consume_tokens(ids)
    if count == len(ids) and matcher.is_accepting():
        return ""
    return tokens.decode(ids[:count]).decode("utf-8", "replace") + "<STOP>"


def walk(grammar: str, tokens: Tokens, seed: int, skew: float, most: int) -> tuple[str, bool]:
    """Draw allowed tokens; return the text and whether the grammar ended it. `skew` 0 is uniform."""
    rng = np.random.default_rng(seed)
    weights = rng.random(tokens.size) ** -skew
    matcher = LLMatcher(tokens.guidance, grammar)
    assert not matcher.is_error(), matcher.get_error()
    ids: list[int] = []
    while len(ids) < most and not matcher.is_stopped():
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little")[: tokens.size])
        assert len(allowed), tokens.decode(ids)
        share = weights[allowed]
        token = int(rng.choice(allowed, p=share / share.sum()))
        if token == tokens.guidance.eos_token:
            return tokens.decode(ids).decode("utf-8"), True
        assert matcher.consume_token(token)
        ids.append(token)
    done = matcher.is_stopped() and matcher.is_accepting()
    return tokens.decode(ids).decode("utf-8", "strict" if done else "ignore"), done


def read(reader: CallReader, parts: list[str]) -> list[ToolCall]:
    """Return the whole calls of text that comes in parts, their ids emptied; check the pieces on the way."""
    found: dict[str, ToolCall] = {}
    pieces = [piece for part in parts for piece in reader.push(part)] + reader.flush()
    last: set[str] = set()
    for piece in pieces:
        assert piece.id not in last, "a piece after the last one"
        if piece.arguments is not None or piece.error is not None:
            last.add(piece.id)
        assert bool(piece.id in found) != (piece.index == len(found)), "calls are numbered from 0"
        found[piece.id] = found[piece.id] + piece if piece.id in found else piece
    assert last == set(found), "every call ends with its arguments or an error"
    assert all(re.fullmatch("call_[0-9a-f]{24}", number) for number in found)
    for call in found.values():
        if call.arguments is not None:
            assert call.text == json.dumps(call.arguments, ensure_ascii=False)
    return [ToolCall("", call.name, call.arguments, call.text, call.error, call.index) for call in found.values()]
