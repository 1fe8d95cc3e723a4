"""A GGUF file written from a toy checkpoint in Llama's layout, without the package that usually writes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

_FLOAT, _BOOL, _STRING, _ARRAY, _WORD, _INT = 6, 7, 8, 9, 4, 5


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """Return the kind and the bytes of a field."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _WORD, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    head = struct.pack("<I", _ARRAY)
    if value and isinstance(value[0], str):
        return head + struct.pack("<IQ", _STRING, len(value)) + b"".join(map(_text, value))
    kind, form = (_FLOAT, "f") if value and isinstance(value[0], float) else (_INT, "i")
    return head + struct.pack(f"<IQ{len(value)}{form}", kind, len(value), *value)


def write_gguf(path: Path, fields: dict[str, Any], tensors: dict[str, Any] | None = None) -> Path:
    """Write fields and float32 arrays."""
    tensors = tensors or {}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(_text(name) + _value(value) for name, value in fields.items())
    place, blocks = 0, []
    for name, array in tensors.items():
        data = array.astype("<f4").tobytes()
        data += bytes(-len(data) % 32)
        shape = array.shape[::-1]
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, place)
        place += len(data)
        blocks.append(data)
    path.write_bytes(head + bytes(-len(head) % 32) + b"".join(blocks))
    return path


def tokenizer_fields(folder: Path, pre: str = "gpt-2") -> dict[str, Any]:
    """Return the fields of a byte-level tokenizer.json."""
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token["special"] for token in stored["added_tokens"]}
    numbers = stored["model"]["vocab"] | {token["content"]: token["id"] for token in stored["added_tokens"]}
    tokens = sorted(numbers, key=lambda text: numbers[text])
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [(3 if added[text] else 4) if text in added else 1 for text in tokens],
        "tokenizer.ggml.merges": [
            pair if isinstance(pair, str) else " ".join(pair) for pair in stored["model"]["merges"]
        ],
        "tokenizer.ggml.bos_token_id": numbers["<s>"],
        "tokenizer.ggml.eos_token_id": numbers["</s>"],
    }


def convert(folder: Path, path: Path, **changes: Any) -> Path:
    """Write the Llama in `folder` (of `toy.write_llama`, or in a MiniCPM-V 4.0) as GGUF; `changes` replace fields."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config["hidden_size"] // heads
    weights = {name.removeprefix("llm."): value for name, value in load_file(folder / "model.safetensors").items()}
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
        "output.weight": weights["lm_head.weight"],
    }
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in parts.items():
            array = weights[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):  # llama.cpp turns neighbours, transformers halves
                count = heads if ours == "attn_q" else kv_heads
                array = array.reshape(count, 2, size // 2, -1).swapaxes(1, 2).reshape(array.shape)
            tensors[f"blk.{layer}.{ours}.weight"] = array
    names = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    fields: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "Toy",
        "llama.vocab_size": config["vocab_size"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.dimension_count": size,
        "llama.rope.freq_base": float((config.get("rope_parameters") or config)["rope_theta"]),
        **({"tokenizer.chat_template": names["chat_template"]} if "chat_template" in names else {}),
    }
    return write_gguf(path, fields | tokenizer_fields(folder) | changes, tensors)


def write_mmproj(folder: Path, path: Path, *, version: int = 5, up: str = "ffn_down", **changes: Any) -> Path:
    """Write the vision part of the checkpoint in `folder` (of `toy_minicpmv`, 2.5 and later).

    Args:
        folder: the checkpoint.
        path: the file.
        version: clip.minicpmv_version.
        up: the name of the first matrix of the MLP, which the converter of MiniCPM-V called "ffn_down" at first.
        **changes: fields to replace.
    """
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    down = "ffn_up" if up == "ffn_down" else "ffn_down"
    names = [
        ("vpm.embeddings.patch_embedding", "v.patch_embd"),
        ("vpm.embeddings.position_embedding", "v.position_embd"),
        ("vpm.post_layernorm", "v.post_ln"),
        ("vpm.encoder.layers", "v.blk"),
        ("self_attn.out_proj", "attn_out"),
        *[(f"self_attn.{part}_proj", f"attn_{part}") for part in "qkv"],
        ("layer_norm", "ln"),
        ("mlp.fc1", up),
        ("mlp.fc2", down),
        ("kv_proj", "kv"),
        ("attn.out_proj", "attn.out"),
    ]
    tensors: dict[str, Any] = {}
    for name, array in load_file(folder / "model.safetensors").items():
        if name.startswith("llm."):
            continue
        for theirs, ours in names:
            name = name.replace(theirs, ours)
        if "in_proj_" in name:
            parts = zip("qkv", array.reshape(3, -1, *array.shape[1:]), strict=True)
            tensors |= {name.replace("in_proj_", f"{part}."): value for part, value in parts}
        elif name == "resampler.proj":
            tensors |= {"resampler.proj.weight": array.T, "resampler.pos_embed_k": array[:2]}
        else:
            tensors[name] = array
    vision = config["vision_config"]
    sizes = {
        "image_size": config["slice_config"]["scale_resolution"],
        "patch_size": vision["patch_size"],
        "embedding_length": tensors["v.post_ln.weight"].shape[0],
        "feed_forward_length": tensors[f"v.blk.0.{up}.weight"].shape[0],
        "block_count": vision["num_hidden_layers"],
        "attention.head_count": vision["num_attention_heads"],
        "attention.layer_norm_epsilon": 1e-6,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    fields = {"general.architecture": "clip", "clip.projector_type": "resampler", "clip.minicpmv_version": version}
    fields |= {f"clip.vision.{name}": value for name, value in sizes.items()}
    return write_gguf(path, fields | changes, tensors)
