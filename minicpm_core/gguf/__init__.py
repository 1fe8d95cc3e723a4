"""Models in GGUF files: llama.cpp computes logits, all else is the engine's own."""

from __future__ import annotations

from pathlib import Path


def is_gguf(model: str | Path) -> bool:
    """Tell whether a model's name is that of a GGUF file."""
    return str(model).lower().endswith(".gguf")
