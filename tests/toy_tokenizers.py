"""A tokenizer for each family with the control tokens of the published ones, in the published kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.toy import CORPUS

_OLD = ["<unk>", "<s>", "</s>"]
_TURNS = ["<|im_end|>", "<|im_start|>", "<|tool_call|>", "<|execute_start|>", "<|execute_end|>"]
_FILL = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
_PICTURES = [
    f"<{end}{name}>" for name in ("image", "ref", "box", "quad", "point", "slice", "image_id") for end in ("", "/")
]
_HEADERS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
_PADS = ["<|image_pad|>", "<|video_pad|>"]
_THOUGHT = ["<think>", "</think>"]
_CALLS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
_MINICPM5 = [*_OLD[1:], "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|execute_start|>"]
_MINICPM5_ADDED = [
    *_THOUGHT,
    *_CALLS,
    *["<tools>", "</tools>", "<arguments>", "<parameters>", "<function", "</function>", "<param", "</param>"],
    *["<tool_sep>", "<tool_def_sep>", "/think", "/no_think"],
]
TOKENS: dict[str, tuple[bool, list[str], list[str]]] = {
    **{name: (True, _OLD, []) for name in ("minicpm", "minicpm-llama", "minicpm-moe", "minicpm-s")},
    **{name: (True, [*_OLD, *_TURNS, *_FILL], []) for name in ("minicpm3", "minicpm4")},
    "minicpm-128k": (True, [*_OLD, "<|im_start|>", "<|im_end|>"], []),
    "minicpm4.1": (True, [*_OLD, *_TURNS, *_FILL], _THOUGHT),
    "minicpm5": (False, _MINICPM5, _MINICPM5_ADDED),
    "minicpm-v-1.0": (True, [*_OLD, *_PICTURES], []),
    "minicpm-v-2.0": (True, [*_OLD, *_PICTURES], []),
    "minicpm-v-2.5": (False, [*_OLD[:1], *_PICTURES, *_HEADERS], []),
    "minicpm-v-2.6": (False, [*_QWEN, *_PICTURES, "<unk>"], []),
    "minicpm-v-4.0": (True, [*_OLD, *_TURNS, *_PICTURES], []),
    "minicpm-v-4.5": (False, [*_QWEN, *_PICTURES, "<unk>"], [*_THOUGHT, *_CALLS]),
    **{
        name: (False, [*_QWEN, *_PADS, *_PICTURES], [*_THOUGHT, *_CALLS])
        for name in ("minicpm-v-4.6", "minicpm-v-4.7", "minicpm-ocr")
    },
}
"""Whether it is a SentencePiece model or one of bytes, its special tokens, and those added as words."""


def write_tokenizer_of(folder: Path, family: str) -> None:
    """Write the tokenizer files of a family, over those that are there; a chat template and its names stay."""
    pieces, special, added = TOKENS[family]
    made = sentence_pieces(special) if pieces else _bytes(special, added)
    _add(made, special, added)
    made.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    bos = special[1] if pieces else next((text for text in special if "begin" in text), special[0])
    config |= {"bos_token": bos, "eos_token": special[2]}
    config.pop("unk_token", None)
    path.write_text(json.dumps(config), encoding="utf-8")


def _add(tokenizer: Any, special: list[str], added: list[str]) -> None:
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])


def sentence_pieces(special: list[str], *, byte_fallback: bool = True) -> Any:
    """Return a BPE of characters that puts a space before a text and merges the names of `special` to their tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    bytes_ = [f"<0x{value:02X}>" for value in range(256)] if byte_fallback else []
    characters = sorted(set("".join(CORPUS + special)) | {"\u2581"})
    pieces = list(dict.fromkeys([*(special if "<unk>" in special else ["<unk>", *special]), *bytes_, *characters]))
    merges = []
    for name in special:
        for end in range(2, len(name) + 1):
            pieces += [name[:end]] if name[:end] not in pieces else []
            merges += [(name[: end - 1], name[end - 1])] if (name[: end - 1], name[end - 1]) not in merges else []
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _bytes(special: list[str], added: list[str]) -> Any:
    """Return a BPE of bytes that takes a word of the vocabulary whole, the names of added tokens too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*special, *added], initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    stored = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in stored["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=stored["vocab"], merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
