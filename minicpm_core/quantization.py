"""int4 and int8 weights through bitsandbytes, as one argument."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Literal

from minicpm_core.quiet import silence_casts

Quantization = Literal["int4", "int8", "none", "auto"]
_AUTO_BYTES = 1_000_000_000
"""Weights above this size are loaded in int4 by "auto"."""

_INT4_MULTIPLES = (32, 64)
"""Of outputs and inputs: the CPU kernel's block, and the block of weights that share a scale."""

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


def choose_quantization(
    quantization: str | None, *, weight_bytes: int, stored: Literal["int4", "int8"] | None = None
) -> Literal["int4", "int8"] | None:
    """Return what `quantization` stands for: None and "none" keep the weights, "auto" takes int4 for large ones.

    Args:
        quantization: the argument of `load`.
        weight_bytes: size of the weight files.
        stored: how the weights are quantised already (`stored_kind`); they stay so.

    Raises:
        ValueError: another value, or one that the stored weights do not have.
        ImportError: int4 or int8 was asked for and bitsandbytes is not installed.
    """
    if stored and quantization in (None, "auto", stored):
        return stored
    if stored and quantization in ("none", "int4", "int8"):
        raise ValueError(f"the weights are stored in {stored}; quantization={quantization!r} needs unquantised ones")
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
        silence_casts()
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(UNQUANTIZED))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=list(UNQUANTIZED),
    )


def unsuitable_modules(tensors: Mapping[str, Any], quantization_config: Any) -> list[str]:
    """Return what stays in 16 bit: `UNQUANTIZED` where it lies in the model, and shapes that not every device takes.

    Args:
        tensors: name -> something with a `shape`; names end in ".weight".
        quantization_config: what `bitsandbytes_config` returned.
    """
    weights = {name.removesuffix(".weight"): t.shape for name, t in tensors.items() if name.endswith(".weight")}
    kept = sorted({place for name in weights if (place := _place_of_unquantized(name))})
    if quantization_config.load_in_8bit:  # its input there has four dimensions, of which bitsandbytes takes three
        return [*kept, *(name for name in weights if name.endswith("kv_b_proj"))]
    rows, columns = _INT4_MULTIPLES
    shapes = {name: shape for name, shape in weights.items() if len(shape) == 2}
    return [*kept, *(name for name, shape in shapes.items() if shape[0] % rows or shape[1] % columns)]


def _place_of_unquantized(name: str) -> str | None:
    """Return the path of the module in UNQUANTIZED that holds a layer, None where none does or its name is enough.

    transformers finds the names of modules that are to be skipped at the start and at the end of a layer's path only.
    """
    parts = name.split(".")
    depth = next((i for i, part in enumerate(parts) if part in UNQUANTIZED), 0)
    return ".".join(parts[: depth + 1]) if 0 < depth < len(parts) - 1 else None


def computes_here(quantization_config: Any, tensors: Mapping[str, Any]) -> bool:
    """Tell whether the CPU's own 4-bit layers (minicpm_core.int4) can be used; else bitsandbytes' are.

    Args:
        quantization_config: how the model is, or is to be, quantised.
        tensors: by name; where they are stored in 4 bits, in which way is told by them.
    """
    if not quantization_config.load_in_4bit:
        return False
    from minicpm_core.int4.loading import is_standard

    stored = any(".quant_state.bitsandbytes__" in name for name in tensors)
    return is_standard(tensors) if stored else quantization_config.bnb_4bit_quant_type == "nf4"


def stored_kind(config: Mapping[str, Any]) -> Literal["int4", "int8"] | None:
    """Return how the checkpoint's weights are quantised already, None where they are not.

    Raises:
        ValueError: by a method whose weights cannot be computed with here.
        ImportError: bitsandbytes is needed and not installed.
    """
    stored = config.get("quantization_config")
    if not stored:
        return None
    if not isinstance(stored, Mapping):
        raise ValueError(f"quantization_config in config.json is a {type(stored).__name__}; an object is needed")
    four, eight = (bool(stored.get(f"load_in_{bits}bit")) for bits in (4, 8))
    method = stored.get("quant_method") or ("bitsandbytes" if four or eight else "an unnamed method")
    if method != "bitsandbytes":
        raise ValueError(
            f"the weights are quantised with {method}, for which there is no kernel here; what works: the unquantised "
            'checkpoint with quantization="int4", or one quantised with bitsandbytes'
        )
    if four == eight:
        raise ValueError("quantization_config in config.json must have one of load_in_4bit and load_in_8bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError('this checkpoint is quantised with bitsandbytes: pip install "minicpm-integrations[int4]"')
    return "int4" if four else "int8"


def stored_quantization(config: Mapping[str, Any]) -> Any:
    """Return the transformers config of weights that are already quantised, None where they are not."""
    if stored_kind(config) is None:
        return None
    from transformers import BitsAndBytesConfig

    silence_casts()
    stored = config["quantization_config"]
    if unknown := set(stored) - _STORED_KEYS:
        raise ValueError(f"quantization_config in config.json has unknown keys: {', '.join(sorted(unknown))}")
    try:
        return BitsAndBytesConfig(**{key: value for key, value in stored.items() if key not in _DERIVED_KEYS})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"quantization_config in config.json cannot be used: {error}") from error
