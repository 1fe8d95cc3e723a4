"""Tiny random MiniCPM-V 1.0 to 4.5 checkpoints in the official layout."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tests.toy import CORPUS

HIDDEN, TOWER, LAYERS, HEADS, QUERIES, PATCH = 128, 32, 2, 2, 4, 14
MARKERS = ["<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>"]
TURNS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>"]
VERSIONS = ("1.0", "2.0", "2.5", "2.6", "4.0", "4.5")


def write_minicpmv(
    folder: Path, version: str, *, seed: int = 0, extra: dict[str, Any] | None = None, **overrides: Any
) -> Path:
    """Write a checkpoint; `extra` holds further tensors, `overrides` keys of config.json."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    size = _write_tokenizer(folder)
    old = version in ("1.0", "2.0")
    config: dict[str, Any] = {
        "architectures": ["MiniCPMV"],
        "model_type": "minicpmv",
        "vocab_size": size,
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "query_num": QUERIES,
        "torch_dtype": "float16",
    }
    rule = {"max_slice_nums": 6, "scale_resolution": 56, "patch_size": PATCH}
    if old:
        config |= {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 32, "drop_vision_last_layer": True}
        config |= {"vision_encoder": "a tiny tower", "timm_kwargs": {"num_heads": HEADS}}
        config |= rule if version == "2.0" else {"image_size": 56}
    else:
        config |= {"version": version, "slice_config": rule, "drop_vision_last_layer": False}
        config["vision_config"] = {"num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "patch_size": PATCH}
    config |= overrides
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(seed)
    shapes = _language(config, version) | (_timm_tower() if old else _tower()) | _resampler(placed=old)
    tensors = {name: _random(name, shape) for name, shape in shapes.items()}
    tensors["llm.lm_head.weight"][:10] = 0  # special tokens are not drawn
    save_file(tensors | (extra or {}), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _random(name: str, shape: tuple[int, ...]) -> Any:
    import torch

    norm = "norm" in name or ".ln_" in name
    values = torch.randn(shape) * (0.1 if norm or len(shape) < 2 else 0.6 / math.sqrt(shape[-1]) * 2)
    return (values + (1 if norm and name.endswith("weight") else 0)).half()


def _language(config: dict[str, Any], version: str) -> dict[str, tuple[int, ...]]:
    hidden, middle, kv = HIDDEN, config["intermediate_size"], 64
    shapes: dict[str, tuple[int, ...]] = {
        "llm.model.embed_tokens.weight": (config["vocab_size"], hidden),
        "llm.lm_head.weight": (config["vocab_size"], hidden),
        "llm.model.norm.weight": (hidden,),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"llm.model.layers.{layer}."
        sides = {"q": hidden, "k": kv, "v": kv}
        shapes |= {f"{at}self_attn.{side}_proj.weight": (rows, hidden) for side, rows in sides.items()}
        shapes |= {f"{at}self_attn.o_proj.weight": (hidden, hidden), f"{at}mlp.down_proj.weight": (hidden, middle)}
        shapes |= {f"{at}mlp.{part}_proj.weight": (middle, hidden) for part in ("gate", "up")}
        shapes |= {f"{at}{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        if version == "2.6":
            shapes |= {f"{at}self_attn.{side}_proj.bias": (rows,) for side, rows in sides.items()}
        if version == "4.5":
            shapes |= {f"{at}self_attn.{side}_norm.weight": (32,) for side in "qk"}
    return shapes


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _tower() -> dict[str, tuple[int, ...]]:
    shapes = {"vpm.embeddings.patch_embedding.weight": (TOWER, 3, PATCH, PATCH)}
    shapes |= {"vpm.embeddings.patch_embedding.bias": (TOWER,), "vpm.embeddings.position_embedding.weight": (64, TOWER)}
    for layer in range(LAYERS):
        at = f"vpm.encoder.layers.{layer}."
        for side in ("q", "k", "v", "out"):
            shapes |= _linear(f"{at}self_attn.{side}_proj", TOWER, TOWER)
        shapes |= _linear(f"{at}mlp.fc1", 48, TOWER) | _linear(f"{at}mlp.fc2", TOWER, 48)
        shapes |= _norm(f"{at}layer_norm1", TOWER) | _norm(f"{at}layer_norm2", TOWER)
    return shapes | _norm("vpm.post_layernorm", TOWER)


def _timm_tower() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"vpm.patch_embed.proj.weight": (TOWER, 3, PATCH, PATCH)}
    shapes |= {"vpm.patch_embed.proj.bias": (TOWER,), "vpm.pos_embed": (1, 16, TOWER)}
    for layer in range(LAYERS):
        at = f"vpm.blocks.{layer}."
        shapes |= _linear(f"{at}attn.qkv", 3 * TOWER, TOWER) | _linear(f"{at}attn.proj", TOWER, TOWER)
        shapes |= _linear(f"{at}mlp.fc1", 48, TOWER) | _linear(f"{at}mlp.fc2", TOWER, 48)
        shapes |= _norm(f"{at}norm1", TOWER) | _norm(f"{at}norm2", TOWER)
    return shapes | _norm("vpm.norm", TOWER)


def _resampler(*, placed: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "resampler.query": (QUERIES, HIDDEN),
        "resampler.proj": (HIDDEN, HIDDEN),
        "resampler.kv_proj.weight": (HIDDEN, TOWER),
        "resampler.attn.in_proj_weight": (3 * HIDDEN, HIDDEN),
        "resampler.attn.in_proj_bias": (3 * HIDDEN,),
    }
    shapes |= _linear("resampler.attn.out_proj", HIDDEN, HIDDEN)
    for norm in ("ln_q", "ln_kv", "ln_post"):
        shapes |= _norm(f"resampler.{norm}", HIDDEN)
    return shapes | ({"resampler.pos_embed": (QUERIES, HIDDEN)} if placed else {})


def _write_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *MARKERS, *TURNS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "MiniCPMVTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    return tokenizer.get_vocab_size()
