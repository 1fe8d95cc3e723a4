"""A checkpoint of a published model's shape without content: what is planned from headers, with no weight at hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from minicpm_core.checkpoints import DEMO
from minicpm_core.published import PUBLISHED, PublishedModel


def write_unfilled(folder: Path, name: str) -> Path:
    """Write config.json, the demo's chat template, and a sparse weight file of the model's size in bfloat16."""
    (model,) = (model for model in PUBLISHED if model.name == name)
    folder.mkdir(parents=True, exist_ok=True)
    names = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim".split()
    names += ["vocab_size", "max_position_embeddings", "tie_word_embeddings"]
    config = {"model_type": "llama", "torch_dtype": "bfloat16"} | {key: getattr(model, key) for key in names}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_bytes((DEMO / "chat_template.jinja").read_bytes())
    header, end = {}, 0
    for tensor, shape in _shapes(model).items():
        start, end = end, end + 2 * (shape[0] * shape[-1] if len(shape) == 2 else shape[0])
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def _shapes(model: PublishedModel) -> dict[str, list[int]]:
    hidden = model.hidden_size
    attention, mlp = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    layer: dict[str, list[int]] = {"input_layernorm": [hidden], "post_attention_layernorm": [hidden]}
    parts = [f"self_attn.{part}" for part in attention] + [f"mlp.{part}" for part in mlp]
    layer |= {part: list(shape) for part, shape in zip(parts, model.matrices, strict=True)}
    shapes = {"model.embed_tokens.weight": [model.vocab_size, hidden], "model.norm.weight": [hidden]}
    if not model.tie_word_embeddings:
        shapes["lm_head.weight"] = [model.vocab_size, hidden]
    for number in range(model.num_hidden_layers):
        shapes |= {f"model.layers.{number}.{part}.weight": shape for part, shape in layer.items()}
    return shapes
