"""The tokenizer of a GGUF file, as a fast tokenizer of transformers."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from minicpm_core.gguf.checkpoint import GgufCheckpoint
from minicpm_core.gguf.header import GgufHeader
from minicpm_core.quiet import quiet

_UNKNOWN, _CONTROL, _ADDED = 2, 3, 4
"""Kinds in tokenizer.ggml.token_type; an added one is found in a text before it is split into words."""
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MINICPM5 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}+|{_REST}"
_SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (),  # that of the byte level itself
    "llama-bpe": (_LLAMA3,),
    "llama3": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "qwen35": (_QWEN35,),
    "minicpm5": (r"\p{N}{1,3}", _MINICPM5),
}
"""How a text is split into words, by tokenizer.ggml.pre (llama.cpp, src/llama-vocab.cpp)."""
_WHOLE_WORDS = ("llama-bpe", "llama3", "minicpm5")
"""Where a word that is a token is one, whatever the merges make of it."""


def read_tokenizer(checkpoint: GgufCheckpoint) -> Any:
    """Return the tokenizer that the file describes, with the chat template set.

    Raises:
        ValueError: the file has no tokenizer, or one of a kind that is not supported.
    """
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    fields = checkpoint.header.metadata
    kind = fields.get("tokenizer.ggml.model")
    if "tokenizer.ggml.tokens" not in fields or kind not in ("gpt2", "llama"):
        raise ValueError(f"{checkpoint.name} has a tokenizer of the kind {kind!r}; accepted: gpt2 (BPE), llama (SPM)")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not len(tokens) == len(kinds) == len(fields.get("tokenizer.ggml.scores", tokens)):
        raise ValueError(f"{checkpoint.name} is damaged: its tokens, their kinds and scores are not of the same number")
    try:
        made = _byte_level(checkpoint.header) if kind == "gpt2" else _sentence_pieces(checkpoint.header)
    except ValueError:
        raise
    except Exception as error:  # the tokenizers library raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the tokenizer in {checkpoint.name} cannot be read ({reason}); download it again") from error
    added = ((text, kind == _CONTROL) for text, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _ADDED))
    for special, group in groupby(added, key=lambda entry: entry[1]):
        marked = [AddedToken(text, special=special, normalized=False) for text, _ in group]
        made.add_special_tokens(marked) if special else made.add_tokens(marked)

    def name(field: str) -> str | None:
        number = fields.get(f"tokenizer.ggml.{field}_token_id")
        return tokens[number] if isinstance(number, int) and 0 <= number < len(tokens) else None

    with quiet():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=name("bos"), eos_token=name("eos"))
    tokenizer.chat_template = checkpoint.chat_template
    return tokenizer


def _byte_level(header: GgufHeader) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    fields = header.metadata
    pre = str(fields.get("tokenizer.ggml.pre", "gpt-2"))
    if pre not in _SPLITS:
        raise ValueError(
            f"tokenizer.ggml.pre is {pre!r}; accepted: {', '.join(_SPLITS)}. A file that says 'default' was converted "
            "by a version of llama.cpp that did not know the model: convert it again"
        )
    vocabulary = {text: number for number, text in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in fields.get("tokenizer.ggml.merges", [])]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre in _WHOLE_WORDS))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not _SPLITS[pre])
    splits = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in _SPLITS[pre]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_pieces(header: GgufHeader) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    fields = header.metadata
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    scores: list[float] = fields.get("tokenizer.ggml.scores", [0.0] * len(tokens))
    vocabulary = {text: number for number, text in enumerate(tokens)}
    pairs: list[tuple[float, int, int, str, str]] = []
    for number, text in enumerate(tokens):  # SentencePiece merges what makes the piece of the highest score
        for at in range(1, len(text)):
            left, right = vocabulary.get(text[:at]), vocabulary.get(text[at:])
            if left is not None and right is not None:
                pairs.append((-scores[number], left, right, text[:at], text[at:]))
    kinds = fields.get("tokenizer.ggml.token_type", [])
    unknown = tokens[kinds.index(_UNKNOWN)] if _UNKNOWN in kinds else None
    merges = [(left, right) for *_, left, right in sorted(pairs)]
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    prefix = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    steps: list[Any] = [normalizers.Prepend("\u2581")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    ends: list[Any] = [decoders.Strip(content=" ", left=1)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *ends]
    )
    return tokenizer
