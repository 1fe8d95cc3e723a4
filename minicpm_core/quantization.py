"""int4 and int8 weights through bitsandbytes, as one argument."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Literal

Quantization = Literal["int4", "int8", "none", "auto"]
_AUTO_BYTES = 1_000_000_000
"""Weights above this size are loaded in int4 by "auto"."""

UNQUANTIZED = ("lm_head", "embed_tokens", "vpm", "vision_tower", "resampler", "merger")
"""Modules that stay in 16 bit; norms are no linear layers and stay anyway."""


_STORED_KEYS = frozenset(
    {
        "_load_in_4bit",
        "_load_in_8bit",
        "bnb_4bit_compute_dtype",
        "bnb_4bit_quant_storage",
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
        "llm_int8_enable_fp32_cpu_offload",
        "llm_int8_has_fp16_weight",
        "llm_int8_skip_modules",
        "llm_int8_threshold",
        "load_in_4bit",
        "load_in_8bit",
        "quant_method",
    }
)
_DERIVED_KEYS = frozenset({"_load_in_4bit", "_load_in_8bit", "quant_method"})


def choose_quantization(quantization: str | None, *, weight_bytes: int) -> Literal["int4", "int8"] | None:
    """Return what `quantization` stands for: None and "none" keep the weights, "auto" takes int4 for large ones.

    Raises:
        ValueError: another value.
        ImportError: int4 or int8 was asked for and bitsandbytes is not installed.
    """
    if quantization in (None, "none"):
        return None
    installed = importlib.util.find_spec("bitsandbytes") is not None
    if quantization == "auto":
        return "int4" if installed and weight_bytes > _AUTO_BYTES else None
    if quantization not in ("int4", "int8"):
        raise ValueError(f'quantization is {quantization!r}; accepted: "int4", "int8", "none", "auto"')
    if not installed:
        raise ImportError(f'quantization="{quantization}" needs bitsandbytes: pip install "minicpm-integrations[int4]"')
    return "int4" if quantization == "int4" else "int8"


def bitsandbytes_config(quantization: Literal["int4", "int8"], *, compute_dtype: Any) -> Any:
    """Return the transformers config for nf4 with double quantisation (Dettmers et al. 2023) or LLM.int8()."""
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(UNQUANTIZED))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=list(UNQUANTIZED),
    )


def stored_quantization(config: Mapping[str, Any]) -> Any:
    """Return the transformers config of weights that are already quantised, None where they are not.

    Raises:
        ValueError: by a method whose weights cannot be computed with here.
        ImportError: bitsandbytes is needed and not installed.
    """
    stored = config.get("quantization_config")
    if not stored:
        return None
    method = stored.get("quant_method") if isinstance(stored, Mapping) else stored
    if method not in ("bitsandbytes", None) or not isinstance(stored, Mapping):
        raise ValueError(
            f"the weights are quantised with {method}, for which there is no kernel here; "
            'load the unquantised checkpoint with quantization="int4", or a bitsandbytes or GGUF one'
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError('this checkpoint is quantised with bitsandbytes: pip install "minicpm-integrations[int4]"')
    from transformers import BitsAndBytesConfig

    if unknown := set(stored) - _STORED_KEYS:
        raise ValueError(f"quantization_config in config.json has unknown keys: {', '.join(sorted(unknown))}")
    return BitsAndBytesConfig(**{key: value for key, value in stored.items() if key in _STORED_KEYS - _DERIVED_KEYS})
