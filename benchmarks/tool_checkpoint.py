"""A checkpoint of random weights whose vocabulary has the size of MiniCPM3's and MiniCPM4's."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import minicpm_core

VOCABULARY = 73_448
_DEMO = Path(minicpm_core.__file__).parent / "demo"
_CHARACTERS = 8_000_000


def write_random_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint in MiniCPM5's layout: the demo checkpoint's template and markers, weights at random."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        shutil.copy(_DEMO / name, folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=[1, 3],
        pad_token_id=1,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    """Train a byte-level BPE tokenizer on Python's own library and on made-up English and Chinese words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    added = json.loads((_DEMO / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token["content"], special=True, normalized=False) for token in added],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain(_library_texts(), _made_up_texts()), trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"the texts gave {tokenizer.get_vocab_size()} tokens instead of {VOCABULARY}")
    tokenizer.save(str(folder / "tokenizer.json"))


def _library_texts() -> Iterator[str]:
    library, left = Path(sysconfig.get_path("stdlib")), _CHARACTERS
    for path in sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts):
        text = path.read_text(encoding="utf-8", errors="ignore")
        left -= len(text)
        yield text
        if left < 0:
            return


def _made_up_texts() -> Iterator[str]:
    rng = random.Random(0)
    syllables = ["".join(pair) for pair in itertools.product("bcdfglmnprstvz", "aeiou")]
    signs = [bytes((row, cell)).decode("gb2312") for row in range(0xB0, 0xD7) for cell in range(0xA1, 0xFA)]
    words = ["".join(rng.choices(syllables, k=rng.choice((2, 3, 4)))) for _ in range(30_000)]
    hanzi = ["".join(rng.choices(signs, k=rng.choice((2, 2, 3)))) for _ in range(30_000)]
    for _ in range(6_000):
        yield " ".join(rng.choices(words, k=15)) + " " + "，".join(rng.choices(hanzi, k=15))
