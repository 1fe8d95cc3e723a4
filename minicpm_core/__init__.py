"""MiniCPM models on your own machine: one engine for LangChain and LlamaIndex. Importing it does not import torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minicpm_core.errors import (
    AnswerTimeoutError,
    IndexDamagedError,
    IndexLockedError,
    IndexStorageError,
    OutOfMemoryError,
    QueueFullError,
)
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.types import Chunk, IncompleteOutputError, Message, Sampling, TokenLogprob, ToolCall, Usage

if TYPE_CHECKING:
    from minicpm_core.adapters import merge_adapter
    from minicpm_core.copies import convert
    from minicpm_core.engine import Engine
    from minicpm_core.int4.export import quantize
    from minicpm_core.loading import load
    from minicpm_core.memory import plan
    from minicpm_core.memory_plan import MemoryPlan
    from minicpm_core.ocr import BadBox, TextBox, TextBoxWarning, draw_boxes, merge_lines, parse_boxes, read_text
    from minicpm_core.registry import close_all, shared_engine
    from minicpm_core.retrieval_models import EmbeddingModel, RerankerModel

__all__ = [
    "AnswerTimeoutError",
    "BadBox",
    "Chunk",
    "EmbeddingModel",
    "Engine",
    "IncompleteOutputError",
    "IndexDamagedError",
    "IndexLockedError",
    "IndexStorageError",
    "MemoryPlan",
    "Message",
    "OutOfMemoryError",
    "PictureSettings",
    "QueueFullError",
    "RerankerModel",
    "Sampling",
    "TextBox",
    "TextBoxWarning",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "close_all",
    "convert",
    "draw_boxes",
    "load",
    "merge_adapter",
    "merge_lines",
    "parse_boxes",
    "plan",
    "quantize",
    "read_text",
    "shared_engine",
]

_HOMES = {
    "EmbeddingModel": "retrieval_models",
    "RerankerModel": "retrieval_models",
    "merge_adapter": "adapters",
    "convert": "copies",
    "Engine": "engine",
    "load": "loading",
    "MemoryPlan": "memory_plan",
    "plan": "memory",
    "quantize": "int4.export",
    "BadBox": "ocr",
    "TextBox": "ocr",
    "TextBoxWarning": "ocr",
    "draw_boxes": "ocr",
    "merge_lines": "ocr",
    "parse_boxes": "ocr",
    "read_text": "ocr",
    "close_all": "registry",
    "shared_engine": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
