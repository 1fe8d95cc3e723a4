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
"""Nothing else reaches the transformers config: some of its keys name files to open or kernels to download."""
_MAX_POSITION = 2048
_DEFAULTS = {"max_position_embeddings": _MAX_POSITION, "rms_norm_eps": 1e-6}
"""What the official classes take for a missing key, where the class in transformers differs."""
_GRANITE = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
_LATENT = {"q_lora_rank": 768, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32}
"""The sizes of multi-head latent attention with the official class's defaults."""
_ARCHITECTURES = {"MiniCPMForCausalLM": "minicpm", "MiniCPM3ForCausalLM": "minicpm3"}
_MAX_LAYERS = 1024
_MAX_SIZE = 2**24


def model_type(config: Json) -> str:
    """Return the config's model_type, from `architectures` where it is missing (early 2B checkpoints lack it)."""
    named = config.get("model_type")
    if named:
        return str(named)
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    return _ARCHITECTURES.get(str(first), "")


def is_mixture(config: Json) -> bool:
    """Tell whether the checkpoint has experts, under the official key or Granite's."""
    return max(_count(config, "num_experts"), _count(config, "num_local_experts")) > 1


def is_sparse(config: Json) -> bool:
    """Tell whether the activation is FATReLU or ReLU (ProSparse)."""
    return str(config.get("hidden_act")).split("_")[0] in ("fatrelu", "relu")


def is_longrope(config: Json) -> bool:
    """Tell whether positions are scaled by LongRoPE's factors."""
    return bool(_standard_rope(config)["rope_type"] == "longrope")


def to_llama(config: Json) -> Any:
    """Return the LlamaConfig of a checkpoint in llama format."""
    from transformers import LlamaConfig

    values = _sizes(config) | {
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "rope_parameters": _standard_rope(config),
    }
    return make_config(LlamaConfig, values)


def to_granite(config: Json) -> Any:
    """Return the GraniteConfig that computes what the official `minicpm` code computes.

    Granite has a factor at each of the four places where MiniCPM's muP differs from Llama (Hu et al. 2024, table 7).
    Missing keys take the official class's defaults, a missing tie_word_embeddings included (True).
    """
    from transformers import GraniteConfig

    return make_config(GraniteConfig, granite_values(config))


def to_granite_mixture(config: Json) -> Any:
    """Return the GraniteMoeConfig of a `minicpm` checkpoint with experts."""
    from transformers import GraniteMoeConfig

    experts = max(_count(config, "num_experts"), _count(config, "num_local_experts"))
    chosen = _positive(config, "num_experts_per_tok", 2)
    if chosen > experts:
        raise ValueError(f"num_experts_per_tok {chosen} in config.json is more than the {experts} experts")
    values = granite_values(config) | {"num_local_experts": experts, "num_experts_per_tok": chosen}
    values.pop("mlp_bias", None)
    return make_config(GraniteMoeConfig, values)


def to_latent(config: Json) -> Any:
    """Return the MiniCPM3Config: latent attention and muP, which that class in transformers computes itself."""
    try:
        from transformers import MiniCPM3Config
    except ImportError as error:
        raise ImportError(
            'this checkpoint has latent attention, which needs a newer transformers: pip install "transformers>=5.23"'
        ) from error

    latent = {key: _positive(config, key, default) for key, default in _LATENT.items()}
    hidden, heads = _positive(config, "hidden_size"), _positive(config, "num_attention_heads")
    values = _sizes(config) | latent
    values.pop("head_dim", None)  # the class derives it from the rotary part
    values |= {
        "v_head_dim": _positive(config, "v_head_dim", hidden // heads),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", True)),
        "scale_emb": _number(config, "scale_emb", 1),
        "scale_depth": _number(config, "scale_depth", 1),
        "dim_model_base": _model_base(config),
        "rope_parameters": rope_parameters(config, latent["qk_rope_head_dim"]),
    }
    return make_config(MiniCPM3Config, values)


def granite_values(config: Json) -> dict[str, Any]:
    """Return the arguments of `to_granite`; raise ValueError for a config without the sizes that it needs."""
    values = _sizes(config)
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    if "head_dim" not in values and hidden % heads:
        raise ValueError(f"hidden_size {hidden} in config.json is not a multiple of num_attention_heads {heads}")
    head_dim = values.get("head_dim") or hidden // heads
    values["tie_word_embeddings"] = bool(config.get("tie_word_embeddings", not _is_granite(config)))
    values["rope_parameters"] = rope_parameters(config, head_dim)
    if _is_granite(config):
        return values | {key: _number(config, key, 1.0) for key in _GRANITE}
    return values | {
        "embedding_multiplier": _number(config, "scale_emb", 1),
        "residual_multiplier": _number(config, "scale_depth", 1) / math.sqrt(values["num_hidden_layers"]),
        "attention_multiplier": head_dim**-0.5,
        "logits_scaling": hidden / _model_base(config),
    }


def rope_parameters(config: Json, rotary_dim: int) -> dict[str, Any]:
    """Return the rotary embedding's parameters as the official `minicpm` and `minicpm3` code understands them.

    That code fills its longrope table for max_position_embeddings at once, so where that exceeds the original length
    the long factors hold from the first token on; the classes in transformers would begin with the short ones.

    Args:
        config: the published config, with `rope_scaling` (its kind under "type" or "rope_type") or `rope_parameters`.
        rotary_dim: rotated dimensions of a head; there is one factor for each two.
    """
    rope = _standard_rope(config)
    if rope["rope_type"] != "longrope":
        return rope
    for key in ("long_factor", "short_factor"):
        factors = rope.get(key)
        if not isinstance(factors, list) or len(factors) != rotary_dim // 2:
            given = len(factors) if isinstance(factors, list) else factors
            raise ValueError(f"{key} in config.json has {given} numbers; this model needs {rotary_dim // 2}")
    longest = _positive(config, "max_position_embeddings", _MAX_POSITION)
    original = _positive(rope, "original_max_position_embeddings", longest)
    if longest > original:
        rope["short_factor"] = rope["long_factor"]
    scale = 1 + math.log(longest / original) / math.log(max(original, 2))
    made = {"original_max_position_embeddings": original, "attention_factor": math.sqrt(max(scale, 0))}
    return {"factor": longest / original} | rope | made  # transformers 5.20 asks for a factor, which nothing then uses


def _standard_rope(config: Json) -> dict[str, Any]:
    """Return the parameters with the kind under "rope_type", whichever keys the config uses."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"rope_scaling in config.json is {given!r}; an object is needed")
    rope = dict(given)
    kind = rope.pop("type", None) or "default"
    theta = _number(rope if "rope_theta" in rope else config, "rope_theta", 10000.0)
    return {"rope_type": kind} | rope | {"rope_theta": float(theta)}


def _sizes(config: Json) -> dict[str, Any]:
    """Return the keys that all classes share, checked."""
    values = _DEFAULTS | {key: config[key] for key in _COPIED if config.get(key) is not None}
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        values[key] = _positive(config, key)
    for key in ("num_key_value_heads", "head_dim", "max_position_embeddings"):
        if key in values:
            _positive(values, key)
    if values["num_hidden_layers"] > _MAX_LAYERS:
        raise ValueError(f"num_hidden_layers in config.json is {values['num_hidden_layers']}; at most {_MAX_LAYERS}")
    heads = values["num_attention_heads"]
    groups = values.setdefault("num_key_value_heads", heads)
    if heads % groups:
        raise ValueError(
            f"num_attention_heads {heads} in config.json is not a multiple of num_key_value_heads {groups}"
        )
    return values | {"hidden_act": activation(config)}


def activation(config: Json) -> str:
    """Return the activation's name; that of FATReLU holds its threshold, as in "fatrelu_0.01"."""
    name = str(config.get("hidden_act") or "silu")
    return f"fatrelu_{float(_number(config, 'hidden_act_param', 0.0))}" if name == "fatrelu" else name


def sparse_attention_notice(config: Json) -> str:
    """Return the sentence for a config that asks for InfLLM v2 sparse attention, "" where it does not."""
    sparse = config.get("sparse_config")
    if not sparse:
        return ""
    length = sparse.get("dense_len", 8192) if isinstance(sparse, Mapping) else 8192
    return (
        f"sparse_config is not used: attention stays dense beyond {length} tokens too, "
        "which leaves nothing out and takes more time there"
    )


def _model_base(config: Json) -> float:
    base = _number(config, "dim_model_base", 1)
    if base <= 0:
        raise ValueError(f"dim_model_base in config.json is {base}; a number above 0 is needed")
    return base


def _is_granite(config: Json) -> bool:
    return model_type(config).startswith("granite")


def make_config(config_class: Any, values: Mapping[str, Any]) -> Any:
    """Return a config of a class of transformers; ValueError where it does not accept the values."""
    try:
        return config_class(**values)
    except Exception as error:  # the strict dataclasses of transformers raise several kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"config.json is not accepted by {config_class.__name__}: {reason}") from error


def _count(config: Json, key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) else 0


def _positive(config: Json, key: str, default: int | None = None) -> int:
    value = config.get(key, default) if config.get(key) is not None else default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_SIZE:
        raise ValueError(f"{key} in config.json is {value!r}; a whole number from 1 to {_MAX_SIZE} is needed")
    return value


def _number(config: Json, key: str, default: float) -> float:
    value = config.get(key) if config.get(key) is not None else default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
        raise ValueError(f"{key} in config.json is {value!r}; a number is needed")
    return value
