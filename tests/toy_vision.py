"""Tiny random vision checkpoints: the newer families' layouts, made by the classes of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.toy import CORPUS

TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *TOKENS.values()]
TEMPLATE = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}"
    "{{ '<think>\\n' if enable_thinking else '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}"
)
CLASSES = {"minicpmv4_6": "MiniCPMV4_6", "minicpmv4_7": "MiniCPMV4_7", "minicpm_ocr": "MiniCPMOcr"}


def has_class(model_type: str) -> bool:
    """Tell whether the installed transformers has the class: the last one for Python 3.10 lacks MiniCPM-OCR's."""
    import transformers

    return hasattr(transformers, f"{CLASSES[model_type]}Config")


def native(model_type: str, value: Any = None) -> Any:
    """Return a parameter, `value` or the type itself, that is skipped where the class is not there."""
    import transformers

    reason = f"transformers {transformers.__version__} has no class for {model_type}"
    skipped = pytest.mark.skipif(not has_class(model_type), reason=reason)
    return pytest.param(model_type if value is None else value, marks=skipped)


def write_native(folder: Path, model_type: str, *, seed: int = 0, weights: bool = True, **preprocessor: Any) -> Path:
    """Write a random MiniCPM-V 4.6, 4.7 or OCR checkpoint; without `weights` what encoding needs."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(folder)
    text = {
        "model_type": "qwen3_5_text",
        "vocab_size": len(ids),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "max_position_embeddings": 4096,
        "eos_token_id": ids["<|im_end|>"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "patch_size": 14,
        "image_size": 196,
    }
    whole: dict[str, Any] = {
        "text_config": text,
        "vision_config": vision,
        "insert_layer_id": 1,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
    }
    if model_type == "minicpmv4_7":
        marks = {"image_start_id": "<image>", "image_end_id": "</image>"}
        marks |= {"slice_start_id": "<slice>", "slice_end_id": "</slice>", "newline_id": "Ċ"}
        whole |= {key: ids[token] for key, token in marks.items()}
    prefix = CLASSES[model_type]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{prefix}Config")(**whole)
    if weights:
        model = getattr(transformers, f"{prefix}ForConditionalGeneration")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(0, 0.2)
        model.save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"scale_resolution": 112, "max_slice_nums": 6, "patch_size": 14} | preprocessor), encoding="utf-8"
    )
    return folder


def _write_tokenizer(folder: Path) -> dict[str, int]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "TokenizersBackend",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
        "extra_special_tokens": TOKENS,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return dict(tokenizer.get_vocab())
