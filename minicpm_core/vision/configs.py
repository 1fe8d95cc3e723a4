"""From a MiniCPM-V config.json to the config of its language model; pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from minicpm_core import translation

Json = Mapping[str, Any]

_SHARED = (
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
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "rope_parameters",
)
"""What Qwen's configs have in common with Llama's."""


def vision_version(config: Json) -> str | None:
    """Return "1.0" ... "4.5" for a checkpoint of model_type minicpmv or minicpmo, None for any other.

    The first ones have no `version`: 1.0 and 2.0 name a timm tower and have MiniCPM's scale_emb, of them only 2.0
    knows slices; 2.5 has a vision_config.
    """
    if config.get("model_type") not in ("minicpmv", "minicpmo"):
        return None
    version = config.get("version")
    if version is not None:
        try:
            return f"{float(version):.1f}"
        except (TypeError, ValueError):
            return str(version)
    if "vision_encoder" not in config and "scale_emb" not in config:
        return "2.5"
    sliced = any(key in config for key in ("slice_mode", "max_slice_nums", "scale_resolution"))
    return "2.0" if sliced else "1.0"


def to_granite(config: Json) -> Any:
    """Return the GraniteConfig of V-1.0 and V-2.0, whose class default, unlike the text models', is an untied head."""
    from transformers import GraniteConfig

    values = translation.granite_values({"tie_word_embeddings": False} | dict(config))
    return translation.make_config(GraniteConfig, values)


def to_qwen2(config: Json) -> Any:
    """Return the Qwen2Config of V-2.6 and o-2.6."""
    from transformers import Qwen2Config

    return translation.make_config(Qwen2Config, _qwen_values(config))


def to_qwen3(config: Json) -> Any:
    """Return the Qwen3Config of V-4.5 and o-4.5."""
    from transformers import Qwen3Config

    values = _qwen_values(config) | {"attention_bias": bool(config.get("attention_bias", False))}
    values |= {"head_dim": config["head_dim"]} if config.get("head_dim") else {}
    return translation.make_config(Qwen3Config, values)


def _qwen_values(config: Json) -> dict[str, Any]:
    llama = translation.to_llama(config)
    values = {key: getattr(llama, key) for key in _SHARED}
    if config.get("use_sliding_window"):
        window = {key: config[key] for key in ("sliding_window", "max_window_layers") if key in config}
        values |= {"use_sliding_window": True} | window
    return values


_ROPE = ("rope_theta", "rope_scaling", "partial_rotary_factor", "full_attention_interval")
"""Keys of the language model that its class accepts without declaring them."""


def to_native(class_name: str, config: Json) -> Any:
    """Return the config of a class of transformers that has language model and tower in one.

    Only what the classes declare is taken over: other keys may name files to open or kernels to download.

    Raises:
        ImportError: the installed transformers has no such class.
        ValueError: the class does not accept the values.
    """
    import transformers

    config_class = getattr(transformers, class_name, None)
    if config_class is None:
        raise ImportError(
            f"transformers {transformers.__version__} has no {class_name}: "
            'pip install "transformers>=5.21", which needs Python 3.11 or newer'
        )
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise ValueError("text_config and vision_config in config.json must be objects")
    mixture = text.get("model_type") == "qwen3_5_moe_text"
    text_class = transformers.Qwen3_5MoeTextConfig if mixture else transformers.Qwen3_5TextConfig
    vision_class = config_class.sub_configs_defaults["vision_config"]
    vision_class = getattr(vision_class, "config_class", vision_class)
    try:
        language = text_class(**_declared(text_class, text), **{key: text[key] for key in _ROPE if key in text})
        sight = vision_class(**_declared(vision_class, vision))
        whole = _declared(config_class, config) | {"text_config": language, "vision_config": sight}
        return config_class(**whole)
    except Exception as error:  # the strict dataclasses of transformers raise several kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"config.json is not accepted by {class_name}: {reason}") from error


def _declared(config_class: Any, values: Json) -> dict[str, Any]:
    from transformers import PreTrainedConfig

    names = {field.name for field in fields(config_class)} - {field.name for field in fields(PreTrainedConfig)}
    return {key: value for key, value in values.items() if key in names and value is not None}
