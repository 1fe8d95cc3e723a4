"""MiniCPM models on your own machine: one engine for LangChain and LlamaIndex. Importing it does not import torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minicpm_core.picture_settings import PictureSettings
from minicpm_core.types import Chunk, IncompleteOutputError, Message, Sampling, TokenLogprob, ToolCall, Usage

if TYPE_CHECKING:
    from minicpm_core.adapters import merge_adapter
    from minicpm_core.copies import convert
    from minicpm_core.engine import Engine, load
    from minicpm_core.int4.export import quantize
    from minicpm_core.memory import MemoryPlan, plan
    from minicpm_core.registry import close_all, shared_engine
    from minicpm_core.retrieval_models import EmbeddingModel, RerankerModel

__all__ = [
    "Chunk",
    "EmbeddingModel",
    "Engine",
    "IncompleteOutputError",
    "MemoryPlan",
    "Message",
    "PictureSettings",
    "RerankerModel",
    "Sampling",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "close_all",
    "convert",
    "load",
    "merge_adapter",
    "plan",
    "quantize",
    "shared_engine",
]

_HOMES = {
    "EmbeddingModel": "retrieval_models",
    "RerankerModel": "retrieval_models",
    "merge_adapter": "adapters",
    "convert": "copies",
    "Engine": "engine",
    "load": "engine",
    "MemoryPlan": "memory",
    "plan": "memory",
    "quantize": "int4.export",
    "close_all": "registry",
    "shared_engine": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
