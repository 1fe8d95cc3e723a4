"""Keeps what libraries print while they load off the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' progress bars and advice, and bitsandbytes' about a kernel that it does without."""
    noisy = logging.getLogger("bitsandbytes")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        from transformers.utils import logging as transformers_logging

        level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(level)
            if bars:
                transformers_logging.enable_progress_bar()
    finally:
        noisy.setLevel(before)
