"""The embeddings that an index was made with, and whether those given now are the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from minicpm_core.index.catalog import Catalog
from minicpm_core.index.embedders import Embedder, resolve_embedder
from minicpm_core.index.faults import damaged
from minicpm_core.rag import RagSettings

PROBE = "What does this say? 这是什么意思？"
"""A text whose vector tells an embedder again."""
SAME_VECTOR = 0.95  # cosine; other weights differ more, another precision or device less


def resolve_recorded(
    catalog: Catalog, recorded: str, directory: Path, embeddings: str | Path | Embedder | None
) -> tuple[str, Embedder]:
    """Return name and embedder for an index made with `recorded`.

    Raises:
        ValueError: `embeddings` are others, or missing where they cannot be made from the name.
    """
    if embeddings is None:
        if catalog.get("embeddings_kind") == "object":
            raise ValueError(
                f"the index in {directory} was made with the embeddings object {recorded!r}, which cannot be made from "
                "its name; pass it again as embeddings=..."
            )
        return resolve_embedder(recorded)
    name, embedder = resolve_embedder(embeddings)
    if name != recorded:
        again = "that same object" if catalog.get("embeddings_kind") == "object" else f"embeddings={recorded!r}"
        raise ValueError(
            f"the index in {directory} was made with the embeddings {recorded!r}, not with {name!r}; their vectors do "
            f"not compare: pass {again}, use another folder, or delete this folder and index again"
        )
    return name, embedder


def read_settings(directory: Path, recorded: str) -> RagSettings:
    """Return the settings that the catalog records (IndexDamagedError: they cannot be read)."""
    try:
        return RagSettings.from_dict(json.loads(recorded))
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged(directory, f"its settings cannot be read: {error}") from error


def describe_embedder(embedder: Embedder, by_name: bool) -> dict[str, str]:
    """Return what the catalog records of an embedder besides its name: its vector of a fixed text tells it again."""
    vector = [float(value) for value in embedder.embed_query(PROBE)]
    kind = "name" if by_name else "object"
    return {"dimension": str(len(vector)), "embeddings_kind": kind, "embeddings_probe": json.dumps(vector)}


def check_embedder(catalog: Catalog, name: str, embedder: Embedder, directory: Path) -> None:
    """Refuse an embedder of the recorded name that gives other vectors (ValueError)."""
    stored = catalog.get("embeddings_probe")
    if stored is None:
        return
    vector = embedder.embed_query(PROBE)
    check_dimension(catalog, name, len(vector), directory)
    similarity = cosine(json.loads(stored), vector)
    if similarity < SAME_VECTOR:
        raise ValueError(
            f"the embeddings {name!r} have changed since the index in {directory} was made: their vector of the same "
            f"text has a cosine similarity of {similarity:.2f} to the earlier one, so that they do not find what is "
            "stored; take the earlier model, or delete the folder and index again"
        )


def check_dimension(catalog: Catalog, name: str, dimension: int, directory: Path) -> None:
    """Refuse vectors of another dimension than the index holds (ValueError)."""
    recorded = catalog.get("dimension")
    if recorded is not None and int(recorded) != dimension:
        raise ValueError(
            f"the embeddings {name!r} give vectors of {dimension} numbers; the index in {directory} holds vectors of "
            f"{recorded}: use the embeddings that made it, or delete the folder and index again"
        )


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the cosine similarity of two vectors of the same length."""
    norms = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 1.0
