"""From a published config.json to the config of a class that transformers ships; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

_COPIED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "attention_bias",
    "mlp_bias",
    "head_dim",
)


def is_mixture(config: Json) -> bool:
    """Tell whether the checkpoint has experts (MiniCPM-MoE-8x2B)."""
    return int(config.get("num_experts") or 0) > 1


def to_llama(config: Json) -> Any:
    """Return the LlamaConfig of a llama-format checkpoint (MiniCPM5, 2B llama format)."""
    from transformers import LlamaConfig

    return LlamaConfig(**{k: v for k, v in config.items() if k not in ("architectures", "model_type", "auto_map")})


def to_granite(config: Json) -> Any:
    """Return the GraniteConfig that computes what the official `minicpm` code computes.

    Granite has a factor at each of the four places where MiniCPM's muP differs from Llama (Hu et al. 2024, table 7).
    Missing keys take the official class's defaults, a missing tie_word_embeddings included (True).
    """
    from transformers import GraniteConfig

    return GraniteConfig(**granite_values(config))


def granite_values(config: Json) -> dict[str, Any]:
    """Return the arguments of `to_granite`; raise ValueError for a config without the sizes that it needs."""
    hidden, layers, heads = (
        _positive(config, key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    if hidden % heads:
        raise ValueError(f"hidden_size {hidden} in config.json is not a multiple of num_attention_heads {heads}")
    values = {key: config[key] for key in _COPIED if config.get(key) is not None}
    return values | {
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
        "embedding_multiplier": config.get("scale_emb", 1),
        "residual_multiplier": config.get("scale_depth", 1) / math.sqrt(layers),
        "attention_multiplier": (config.get("head_dim") or hidden // heads) ** -0.5,
        "logits_scaling": hidden / config.get("dim_model_base", 1),
        "rope_parameters": rope_parameters(config),
    }


def rope_parameters(config: Json) -> dict[str, Any]:
    """Return the rotary embedding's parameters, from `rope_scaling` under its old or new keys.

    The official code fills its longrope table for max_position_embeddings at once, so where that exceeds the original
    length the long factors hold from the first token on; the class in transformers would begin with the short ones.
    """
    scaling = dict(config.get("rope_scaling") or {})
    kind = scaling.pop("type", None) or "default"
    rope = {"rope_type": kind, "rope_theta": config.get("rope_theta", 10000.0)} | scaling
    original = rope.get("original_max_position_embeddings")
    if rope["rope_type"] == "longrope" and original and config.get("max_position_embeddings", original) > original:
        rope["short_factor"] = rope["long_factor"]
    return rope


def _positive(config: Json, key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{key} in config.json is {value!r}; a positive whole number is needed")
    return value
