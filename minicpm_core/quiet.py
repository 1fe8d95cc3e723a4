"""Keeps what libraries print while they load off the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


def silence_casts() -> None:
    """Drop what bitsandbytes logs at every call of an int8 layer: that the input is cast. Other lines are kept."""
    source = logging.getLogger("bitsandbytes.autograd._functions")
    if _is_no_cast not in source.filters:
        source.addFilter(_is_no_cast)


def silence_kernels() -> None:
    """Drop what bitsandbytes logs where it is imported: the advice to install kernels that it does without."""
    source = logging.getLogger("bitsandbytes.backends.cpu.ops")
    if _is_no_advice not in source.filters:
        source.addFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")


def _is_no_cast(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' progress bars and advice."""
    from transformers.utils import logging as transformers_logging

    silence_kernels()
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
