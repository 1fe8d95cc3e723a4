"""A GGUF file as a checkpoint: its fields as a config, its row of the family table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from minicpm_core.checkpoints import Checkpoint
from minicpm_core.families import FAMILIES, Family, find_family
from minicpm_core.gguf.header import GgufHeader, read_header
from minicpm_core.gguf.mmproj import find_projector, read_version, read_vision_config

_TEXT = ("llama", "minicpm", "minicpm3")
"""Architectures whose names in GGUF are those of config.json."""
_SEEING = re.compile(r"minicpm[\s_-]*(?:llama3[\s_-]*)?(?:v|o)[\s_-]*(\d)[._](\d)", re.IGNORECASE)


@dataclass(frozen=True)
class GgufCheckpoint(Checkpoint):
    """A checkpoint in one GGUF file.

    Args:
        header: what the file tells about itself.
        projector: the head of the vision part beside it, None where the model reads text only.
    """

    header: GgufHeader = field(kw_only=True)
    projector: GgufHeader | None = field(default=None, kw_only=True)

    @property
    def chat_template(self) -> str:
        """The file's own chat template, or the family's where it has none."""
        return read_template(self.header) or self.family.chat_template

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        """Nothing: a GGUF file has none, and one that lies beside it may belong to another model."""
        return {}

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.header.path,)


def open_gguf(model: str | Path, family: str | None = None) -> GgufCheckpoint:
    """Read what a GGUF file tells about its model and recognise the family; no weight is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds no language model, or the family is not recognised.
    """
    path = Path(model).expanduser()
    header = read_header(path)
    if header.architecture == "clip" or header.metadata.get("general.type") == "mmproj":
        raise ValueError(f"{path} is the vision part (mmproj) of a model; give the file of the language model")
    if header.metadata.get("general.type") == "adapter":
        raise ValueError(f"{path} is an adapter; give the model's file (merge the adapter before the conversion)")
    if header.field("block_count") is None or "token_embd.weight" not in header.tensors:
        raise ValueError(f"{path} holds no language model (architecture {header.architecture!r})")
    config = read_config(header)
    projector = find_projector(header)
    row = _find_row(header, config, family, projector)
    if projector is None or row.vision is None:
        return GgufCheckpoint(str(model), path.parent, config, replace(row, vision=None), header=header)
    config |= read_vision_config(projector)
    return GgufCheckpoint(str(model), path.parent, config, row, header=header, projector=projector)


def read_template(header: GgufHeader) -> str:
    """Return the chat template that the file brings, "" where there is none."""
    return str(header.metadata.get("tokenizer.chat_template", ""))


def read_config(header: GgufHeader) -> dict[str, Any]:
    """Return the file's fields under the names of config.json, as far as families are told by them."""
    heads = int(header.field("attention.head_count", 1))
    hidden = int(header.field("embedding_length", 0))
    kv_heads = header.field("attention.head_count_kv", heads)
    config: dict[str, Any] = {
        "model_type": header.architecture,
        "hidden_size": hidden,
        "num_hidden_layers": int(header.field("block_count", 0)),
        "num_attention_heads": heads,
        "num_key_value_heads": max(kv_heads) if isinstance(kv_heads, list) else kv_heads,
        "vocab_size": header.tensors["token_embd.weight"][0] if "token_embd.weight" in header.tensors else 0,
        "max_position_embeddings": int(header.field("context_length", 0)),
        "num_experts": int(header.field("expert_count", 0)),
        "eos_token_id": stop_ids(header),
    }
    if "rope_factors_long.weight" in header.tensors:
        config["rope_scaling"] = {"rope_type": "longrope"}
    return config


def read_embedding_scale(header: GgufHeader) -> float:
    """Return the number by which llama.cpp multiplies what a model reads (src/models, hparams.f_embedding_scale)."""
    return float(header.field("embedding_scale", 12.0 if header.architecture in ("minicpm", "minicpm3") else 0)) or 1.0


def stop_ids(header: GgufHeader) -> list[int]:
    """Return the ids of the tokens that the file says end a turn or a text."""
    names = ("eos_token_id", "eot_token_id", "eos_token_ids")
    ids: set[int] = set()
    for name in names:
        value = header.metadata.get(f"tokenizer.ggml.{name}", [])
        ids.update(value if isinstance(value, list) else [value])
    return sorted(ids)


def _find_row(
    header: GgufHeader, config: Mapping[str, Any], family: str | None, projector: GgufHeader | None
) -> Family:
    template = read_template(header)
    if family is not None:
        return find_family(config, template, family)
    names = [str(header.metadata.get(f"general.{key}", "")) for key in ("name", "basename", "finetune")]
    seeing = _SEEING.search(" ".join([*names, header.path.name]))
    told = read_version(projector) if projector else f"{seeing[1]}.{seeing[2]}" if seeing else None
    if told:
        version = f"minicpm-v-{told}"
        if any(row.name == version for row in FAMILIES):
            return find_family(config, template, version)
    if header.architecture in _TEXT:
        return find_family(config, template)
    known = ", ".join(row.name for row in FAMILIES)
    raise ValueError(
        f"no MiniCPM family is recognised in {header.path.name} (general.architecture {header.architecture!r}, "
        f"general.name {names[0]!r}); if it is one of these, name it with family=...: {known}"
    )
