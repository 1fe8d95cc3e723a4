"""Embedding models of BERT's shape without sentence-transformers, whose imports take longer than a short answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicpm_core.files import read_json

_KINDS = ("Transformer", "Pooling", "Normalize")
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class BertEmbedder:
    """A BERT whose vectors are the mean over a text's tokens, of length 1; what sentence-transformers computes.

    Args:
        model: transformers' BertModel.
        tokenizer: transformers' tokenizer.
        max_seq_length: tokens that are read of a text, marks included.
    """

    model: Any
    tokenizer: Any
    max_seq_length: int

    def encode(self, texts: list[str], *, batch_size: int, **_: Any) -> Any:
        """Return the vectors, float32 [len(texts), dimension]; other options of sentence-transformers are its own."""
        import numpy as np
        import torch

        order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
        found = np.empty((len(texts), self.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = [texts[n] for n in places]
            options = {"padding": True, "truncation": True, "max_length": self.max_seq_length}
            read = self.tokenizer(batch, return_tensors="pt", **options)
            with torch.inference_mode():
                states = self.model(**read).last_hidden_state
                mask = read["attention_mask"][..., None].to(states.dtype)
                mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
                found[places] = torch.nn.functional.normalize(mean, dim=1).float().numpy()
        return found

    encode_query = encode_document = encode


def load_bert(name: str | Path) -> BertEmbedder | None:
    """Return the model of a folder or of a hub id in the cache; None where it is another kind, or not here.

    Taken are folders of sentence-transformers with a BERT in safetensors, mean pooling, and no prompts of their own.
    """
    folder = _find(name)
    if folder is None or not (folder / _WEIGHTS).is_file():
        return None
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    config, own = read_json(folder, "config.json"), _read(folder, "config_sentence_transformers.json")
    if tuple(kinds) != _KINDS or config.get("model_type") != "bert" or any(own.get("prompts", {}).values()):
        return None
    if config.get("architectures") != ["BertModel"] or modules[0].get("path"):
        return None
    pooling = _read(folder, f"{modules[1]['path']}/config.json")
    ways = {key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True}
    settings = _read(folder, "sentence_bert_config.json")
    if ways != {"pooling_mode_mean_tokens"} or settings.get("do_lower_case"):
        return None
    return _load(folder, config, settings)


def _load(folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> BertEmbedder:
    import torch
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = BertModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    longest = min(int(config["max_position_embeddings"]), tokenizer.model_max_length)
    return BertEmbedder(model, tokenizer, int(settings.get("max_seq_length") or longest))


def _find(name: str | Path) -> Path | None:
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        try:
            cached = try_to_load_from_cache(str(name), "modules.json")
        except ValueError:  # no hub id
            return None
        if not isinstance(cached, str):
            return None
        folder = Path(cached).parent
    return folder if (folder / "modules.json").is_file() else None


def _read(folder: Path, name: str) -> Mapping[str, Any]:
    return read_json(folder, name) if (folder / name).is_file() else {}
