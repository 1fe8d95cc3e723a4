"""The families' ways of writing tool calls: one row each for grammar, reader and writer."""

from minicpm_core.dialects.dialect import MAX_PARALLEL, Dialect
from minicpm_core.dialects.hermes import HERMES, JSON
from minicpm_core.dialects.minicpm5 import MINICPM5
from minicpm_core.dialects.python_calls import PYTHON
from minicpm_core.dialects.qwen3_coder import QWEN3_CODER
from minicpm_core.dialects.reading import CallReader

DIALECTS = (MINICPM5, PYTHON, QWEN3_CODER, HERMES, JSON)

__all__ = ["DIALECTS", "HERMES", "JSON", "MAX_PARALLEL", "MINICPM5", "PYTHON", "QWEN3_CODER", "CallReader", "Dialect"]
