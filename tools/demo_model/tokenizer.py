"""Train the byte-level tokenizer with the MiniCPM5 special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from minicpm_core.rag import QUESTION_LABELS, REFUSALS, SYSTEM_PROMPTS
from tools.demo_model import lexicon_en, lexicon_zh
from tools.demo_model.text_sources import load_sentences

SPECIAL_TOKENS = (
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<think>", "</think>", "<tools>", "</tools>",
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<function", "</function>", "<param",
    "</param>", "<arguments>", "</arguments>", "<parameters>", "</parameters>", "<tool_sep>", "<tool_def_sep>",
    "<|thought_begin|>", "<|thought_end|>", "<|execute_start|>", "<|execute_end|>",
)  # fmt: skip

# One token per Chinese character, digit and mark; endings apart, so that "lamps" shares a token with "lamp".
_LETTERS = r"[\p{L}\p{M}&&[^\p{Han}]]"
_WORDS = (
    r"\p{Han}"
    rf"| ?(?![Tt]his(?!{_LETTERS})){_LETTERS}{{3,}}?(?<!s)(?=(?:s|ed|ing)(?!{_LETTERS}))"
    rf"| ?{_LETTERS}+"
    r"| ?\p{N}"
    r"| ?[^\s\p{L}\p{N}]"
    r"|\s"
)
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def read_corpus() -> Iterator[str]:
    """Yield the texts that the merges are learnt from."""
    yield from load_sentences()
    for _ in range(300):
        for part in (SYSTEM_PROMPTS, QUESTION_LABELS, REFUSALS):
            yield from part.values()
        yield "".join(lexicon_zh.COMMON)
        yield lexicon_zh.FUNCTIONS
    # Every pair of lead bytes of a Chinese character is a token, so that a rare character costs two.
    yield from (chr(0x4E00 + n) for n in range(0, 0x5200, 1) for _ in range(3))
    for _ in range(600):
        yield " " + " ".join(lexicon_en.FUNCTIONS)
    kinds = (lexicon_en.PEOPLE, lexicon_en.THINGS, lexicon_en.ABSTRACT, lexicon_en.ADJECTIVES, lexicon_en.ALL_VERBS)
    for _ in range(250):
        for kind in kinds:
            yield " " + " ".join(kind)
    for _ in range(2000):
        yield " 0 1 2 3 4 5 6 7 8 9"
    for _ in range(250):
        names = (
            lexicon_en.FIRST_NAMES,
            lexicon_en.LAST_NAMES,
            lexicon_en.PLACES,
            lexicon_en.MONTHS,
            lexicon_en.UNITS,
            lexicon_en.DAYS,
        )
        for kind in names:
            yield " " + " ".join(kind)


def train_tokenizer(vocab_size: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer of `vocab_size` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(read_corpus(), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, context_window: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "pad_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_window,
        "padding_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text(encoding="utf-8"), encoding="utf-8")
