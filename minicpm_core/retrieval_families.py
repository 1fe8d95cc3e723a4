"""The table of checkpoints that embed or rank texts: what is particular about each; the rest is its family's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minicpm_core import translation

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Retrieval:
    """What is particular about a kind of checkpoint that embeds or ranks texts; its weights are those of a Family.

    Args:
        name: for people and messages.
        covers: the published checkpoints.
        base: tells the families whose config and tensors it has.
        causal: attention looks back only, unless `is_causal` in config.json says otherwise.
        query: the query's text, with {query}; instructed is the same with {instruction}.
        max_tokens: longest input, special tokens included.
        pictures: it embeds pictures too, with tower and resampler of its family.
    """

    name: str
    covers: str
    base: Callable[[Json], bool]
    causal: bool
    query: str
    instructed: str
    max_tokens: int
    pictures: bool = False


def _is(config: Json, *model_types: str) -> bool:
    return translation.model_type(config) in model_types


EMBEDDERS: tuple[Retrieval, ...] = (
    Retrieval(
        name="minicpm-embedding",
        covers="MiniCPM-Embedding, MiniCPM-Embedding-Light",
        base=lambda config: _is(config, "minicpm", "granite"),
        causal=False,
        query="Query: {query}",
        instructed="Instruction: {instruction} Query: {query}",
        max_tokens=512,
    ),
    Retrieval(
        name="visrag-ret",
        covers="VisRAG-Ret",
        base=lambda config: _is(config, "minicpmv"),
        causal=True,
        query="Represent this query for retrieving relevant documents: {query}",
        instructed="{instruction}{query}",
        max_tokens=2048,
        pictures=True,
    ),
)
PICTURE_EMBEDDERS = tuple(row for row in EMBEDDERS if row.pictures)
RERANKERS: tuple[Retrieval, ...] = (
    Retrieval(
        name="minicpm-reranker",
        covers="MiniCPM-Reranker, MiniCPM-Reranker-Light",
        base=lambda config: _is(config, "minicpm", "granite"),
        causal=False,
        query="Query: {query}",
        instructed="Instruction: {instruction} Query: {query}",
        max_tokens=1024,
    ),
)


def find_retrieval(rows: tuple[Retrieval, ...], config: Json) -> Retrieval:
    """Return the row of EMBEDDERS or RERANKERS that the checkpoint belongs to; ValueError where there is none."""
    for row in rows:
        if row.base(config):
            return row
    covered = "; ".join(row.covers for row in rows)
    raise ValueError(f"model_type {translation.model_type(config)!r} is none of: {covered}")
