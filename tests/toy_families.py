"""A tiny random checkpoint of each text family, in the layout in which the family was published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.toy import write_tokenizer

_TEXT = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "initializer_range": 0.1,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}
_MUP = {"scale_emb": 12, "dim_model_base": 16, "scale_depth": 1.4}
_REMOTE = {
    "architectures": ["MiniCPMForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_minicpm.MiniCPMConfig",
        "AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM",
    },
}


def longrope(size: int, *, original: int = 256, key: str = "rope_type") -> dict[str, Any]:
    """Return a rope_scaling with `size` factors."""
    return {
        key: "longrope",
        "long_factor": [1.0 + 0.3 * i for i in range(size)],
        "short_factor": [1.0 + 0.1 * i for i in range(size)],
        "original_max_position_embeddings": original,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "minicpm5": _TEXT
    | {"model_type": "llama", "tie_word_embeddings": False, "eos_token_id": [1, 3], "rope_theta": 5e6},
    "minicpm-llama": _TEXT | {"model_type": "llama", "tie_word_embeddings": False},
    "minicpm": _TEXT | _MUP | _REMOTE,  # without model_type, as the published file
    "minicpm-128k": _TEXT
    | _MUP
    | _REMOTE
    | {"model_type": "minicpm", "tie_word_embeddings": False, "rope_theta": 4129032.0},
    "minicpm-moe": _TEXT | _MUP | _REMOTE | {"intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2},
    "minicpm-s": _TEXT | _MUP | _REMOTE | {"model_type": "minicpm", "hidden_act": "fatrelu", "hidden_act_param": 0.2},
    "minicpm4": _TEXT
    | _MUP
    | _REMOTE
    | {"model_type": "minicpm", "mup_denominator": 32, "rope_scaling": longrope(8), "eos_token_id": [1, 3]},
    "minicpm4.1": _TEXT
    | _MUP
    | _REMOTE
    | {
        "model_type": "minicpm",
        "tie_word_embeddings": False,
        "rope_scaling": longrope(8, original=64),
        "sparse_config": {"dense_len": 8192, "topk": 64},
    },
    "minicpm3": _TEXT
    | _MUP
    | {
        "model_type": "minicpm3",
        "architectures": ["MiniCPM3ForCausalLM"],
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "rope_scaling": longrope(4, key="type"),
    },
}


def write_family(folder: Path, name: str, *, seed: int = 0, dtype: str = "float32", **overrides: Any) -> Path:
    """Write a random checkpoint of the family `name`, its chat template included; return the folder."""
    import torch
    from safetensors.torch import save_file

    from minicpm_core.families import find_family

    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIGS[name] | overrides | {"torch_dtype": dtype}
    template = find_family({}, "", name).chat_template
    config["vocab_size"] = write_tokenizer(folder, chat_template=template)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {key: value.to(getattr(torch, dtype)) for key, value in official_state(name, config, seed).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def official_state(name: str, config: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return random tensors under the names of the official code."""
    import torch
    import transformers

    from minicpm_core.activations import register_activation
    from minicpm_core.families import find_family

    family = find_family({}, "", name)
    translated = family.translate(config)
    register_activation(translated.hidden_act)
    torch.manual_seed(seed)
    state = getattr(transformers, family.model_class)(translated).state_dict()
    if config.get("tie_word_embeddings", True):
        state.pop("lm_head.weight", None)
    official: dict[str, Any] = {}
    for key, value in state.items():
        layer = key.split(".block_sparse_moe.")[0]
        if key.endswith("router.weight"):
            official[f"{layer}.mlp.gate.weight"] = value
        elif key.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(value):
                w1, w3 = both.chunk(2)
                official[f"{layer}.mlp.experts.{expert}.w1.weight"] = w1.clone()
                official[f"{layer}.mlp.experts.{expert}.w3.weight"] = w3.clone()
        elif key.endswith("experts.down_proj"):
            for expert, w2 in enumerate(value):
                official[f"{layer}.mlp.experts.{expert}.w2.weight"] = w2.clone()
        else:
            official[key] = value.clone()
    return official
