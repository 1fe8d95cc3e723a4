"""Write trained weights in the official MiniCPM5 layout."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from minicpm_core.rag import REFUSALS, Language
from tools.demo_model.network import Shape

BOS, PAD, STOP = 0, 1, (1, 3)
# Factors on the output rows of the refusals' first tokens, chosen with `tools.demo_model.calibrate`.
# The first norm of the network takes them out again where the token is read.
REFUSAL_SCALES: Mapping[Language, float] = {"en": 1.03, "zh": 1.03}


def export(
    weights: dict[str, Tensor],
    shape: Shape,
    tokenizer: Path,
    folder: Path,
    *,
    refusal_scales: Mapping[Language, float] = REFUSAL_SCALES,
) -> None:
    """Save `weights` (names of the training network) as bfloat16 beside the files of `tokenizer`."""
    folder.mkdir(parents=True, exist_ok=True)
    embeddings = weights["embed_tokens.weight"].clone()
    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    for language, scale in refusal_scales.items():
        embeddings[vocabulary.encode(REFUSALS[language], add_special_tokens=False).ids[0]] *= scale
    weights = weights | {"embed_tokens.weight": embeddings}
    tensors = {
        f"model.{name}": weight.to(torch.bfloat16).contiguous()
        for name, weight in weights.items()
        if not name.startswith("probe")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_attention_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_position_embeddings,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rope_theta": shape.rope_theta,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": BOS,
        "eos_token_id": list(STOP),
        "pad_token_id": PAD,
        "dtype": "bfloat16",
        "use_cache": True,
    }
    generation = {"bos_token_id": BOS, "eos_token_id": list(STOP), "pad_token_id": PAD, "do_sample": False}
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, folder / name)


def main() -> None:
    """Export saved weights: `python -m tools.demo_model.export --weights W --tokenizer T --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-calibration", action="store_true", help="leave the refusals' rows as trained")
    args = parser.parse_args()
    weights = torch.load(args.weights, weights_only=True)
    scales: Mapping[Language, float] = {} if args.no_calibration else REFUSAL_SCALES
    export(
        weights,
        Shape(vocab_size=weights["embed_tokens.weight"].shape[0]),
        args.tokenizer,
        args.out,
        refusal_scales=scales,
    )


if __name__ == "__main__":
    main()
