"""Tiny random checkpoints in official layouts, made by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CORPUS = [
    "The quick brown fox jumps over the lazy dog. The lamp has a warranty of two years and costs 35 EUR.",
    "system user assistant tool Question: What is the name of the city? Answer only from the numbered passages.",
    "保修期为两年，退货请在十四天内办理。北京的仓库由王芳负责。文档中没有提到。",
    '{"name": "magic_function", "arguments": {"input": 3}} <think> </think> [1] [2] [3] hello world!',
]
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
MARKERS = ["<think>", "</think>"]


def write_tokenizer(folder: Path, *, bos: str = "<s>", chat_template: str | None = None, vocab_size: int = 600) -> int:
    """Write a byte-level BPE tokenizer trained on a few lines; return its size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in MARKERS])
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": bos, "eos_token": "</s>"}
    if chat_template:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tokenizer.get_vocab_size()


def write_llama(folder: Path, *, seed: int = 0, eos_free: bool = True, **overrides: Any) -> Path:
    """Write a random MiniCPM5-like checkpoint; `eos_free` keeps greedy decoding from ending at once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from minicpm_core.chat_templates import CHATML_TEMPLATE

    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder, chat_template="<s>" + CHATML_TEMPLATE)
    values: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": [1, 3],
        "pad_token_id": 1,
        "tie_word_embeddings": False,
    } | overrides
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.4)
        if eos_free:
            model.lm_head.weight[:4] = 0
            model.lm_head.weight[:4, 0] = -50.0
            model.model.norm.weight[0] = 0
    model.save_pretrained(folder)
    return folder
