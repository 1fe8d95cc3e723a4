# ruff: noqa: E501 (tables)
"""Tokens that tool calls need beside the learnt merges: words without a space, kana, letters, and JSON of schemas.

A word of the vocabulary costs two to five tokens where no space stands before it, so that the first word of an argument
would have to be spelt instead of copied; kana and letters outside ASCII would be bytes; and the JSON around a tool's name
and parameters would be most of the prompt.
"""

from __future__ import annotations

import json
import re
from collections import Counter

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from tools.demo_model import lexicon_en
from tools.demo_model.text_sources import load_sentences

_KANA = "".join(map(chr, (*range(0x3041, 0x3095), *range(0x30A1, 0x30F7), 0x30FC)))
_LETTERS = "ÄÅÇÉÖØÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüýăąćčďęěğıłńňőřśşšţťůűźżžșț"
_CYRILLIC = "".join(map(chr, range(0x410, 0x450))) + "Ёё"
_KANJI = """佐藤鈴渡辺斎齋黒沢澤浜濱広弘橋崎桜々咲翔陽菜葵蓮悠結莉亜優綾彩香織恵裕樹浩幸介郎奈穂智也哉翼葉真由佳純
岡野関榊柴須堀峰嶋桑樋笹荻菅栗椿涼颯凛紬芽樱雨梓琴遥晴杏栞瑞珠莲婷娜琳昊轩涵怡欣妍雯鑫钰琪瑶璐曦晗睿煜烨
瀚榕婧彤媛洁倩霞颖姗鹏旭磊斌毅瑾涛蕾慧嘉俊杰梓""".replace("\n", "")  # fmt: skip
_WORDS = "type function name description parameters properties required string integer number boolean object array expression query path file".split()
_SELDOM = frozenset(
    """how between used where say which far every can must him into may made You Where Those That had would There but for
    not some Are These For often have than Were could begin under From was us until What with Did Why his Is Have more
    least Which them since much We when might Who She He their because On Do should were been they there it its Its
    This And or of at by did do does and to in on if so as is""".split()
)
_BEGINNINGS = 215
_TYPES = ("string", "integer", "number", "boolean", "array")
_PRETTY = (
    '{"type": "function", "function": {"name": "',
    '", "description": "',
    ', "description": "',
    '", "parameters": {"properties": {"',
    '", "parameters": {"type": "object", "properties": {"',
    '", "parameters": {"properties": {}, "type": "object"}}}',
    '", "parameters": {"type": "object", "properties": {}}}}',
    '": {"description": "',
    '": {"title": "',
    ', "title": "',
    '": {"default": ',
    ', "default": null',
    '": {"enum": ["',
    '}, "',
    '}}, "required": ["',
    '"], "type": "object"}}}',
    '}}, "type": "object"}}}',
    "# Tools\n\nYou may call functions. Their signatures, one JSON object per line:\n",
    '\n\nTo call a function, answer with <function name="NAME"><param name="KEY">VALUE</param></function>. Several calls'
    " may follow each other. A value with <, & or a line break stands in <![CDATA[ ]]>.",
)


def _schema_parts() -> list[str]:
    """Return the texts of tool schemas and of the prompt around them that become one token each."""
    parts = list(_PRETTY)
    for kind in _TYPES:
        parts += [f'": {{"type": "{kind}"', f', "type": "{kind}"', f'", "type": "{kind}"']
    for kind in _TYPES[:-1]:
        parts += [
            f'": {{"items": {{"type": "{kind}"}}',
            f', "items": {{"type": "{kind}"}}',
            f'": {{"anyOf": [{{"type": "{kind}"}}, {{"type": "null"}}]',
        ]
    return parts


def _words(tokenizer: Tokenizer) -> list[str]:
    """Return the whole words of the vocabulary that are likely to begin an argument, without their space."""
    lists = (value for value in vars(lexicon_en).values() if isinstance(value, (list, tuple)))
    known = {part for words in lists for word in words if isinstance(word, str) for part in word.split()}
    split = tokenizer.pre_tokenizer.pre_tokenize_str
    counts = Counter(piece for sentence in load_sentences() for piece, _ in split(sentence))
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [token[1:] for token, _ in tokens if re.fullmatch(r"Ġ[A-Za-z]{2,}", token)]
    kept = [word for word in words if (word in known or counts["Ġ" + word] > 30) and word not in _SELDOM]
    return [*_WORDS, *kept]


def _beginnings(tokenizer: Tokenizer, vocabulary: dict[str, int]) -> list[str]:
    """Return the pieces that begin most words behind a space and are no token without it, `_BEGINNINGS` at most."""
    split = tokenizer.pre_tokenizer.pre_tokenize_str
    words = {piece for sentence in load_sentences() for piece, _ in split(" " + sentence)}
    words = {form for word in words for form in (word, "Ġ" + word[1:].capitalize())}
    pieces = Counter(
        tokenizer.encode(" " + word[1:], add_special_tokens=False).tokens[0]
        for word in sorted(words)
        if re.fullmatch(r"Ġ[A-Za-z]{2,}", word)
    )
    return [piece for piece, _ in pieces.most_common() if piece[1:] and piece[1:] not in vocabulary][:_BEGINNINGS]


def _merge_alike(merges: list[list[str]], vocabulary: dict[str, int]) -> list[list[str]]:
    """Return `merges` with each merge behind a space made possible without it, so that a copied word keeps its pieces."""
    known = {(left, right) for left, right in merges}
    both = []
    for left, right in merges:
        both.append([left, right])
        bare = left[1:]
        if left[0] == "Ġ" and bare in vocabulary and bare + right in vocabulary and (bare, right) not in known:
            both.append([bare, right])
    return both


def extend(tokenizer: Tokenizer) -> Tokenizer:
    """Return `tokenizer` with more tokens behind its own; no id changes."""
    content = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = content["model"]["vocab"]
    merges: list[list[str]] = content["model"]["merges"]
    for character in dict.fromkeys((*_KANA, *_LETTERS, *_CYRILLIC, *_KANJI)):
        pieces = tokenizer.encode(character, add_special_tokens=False).tokens
        while len(pieces) > 1:
            joined = pieces[0] + pieces[1]
            if joined not in vocabulary:
                vocabulary[joined] = len(vocabulary)
                merges.append([pieces[0], pieces[1]])
            pieces = [joined, *pieces[2:]]
    for word in _words(tokenizer):
        vocabulary.setdefault(word, len(vocabulary))
    for piece in _beginnings(tokenizer, vocabulary):
        vocabulary[piece[1:]] = len(vocabulary)
    content["model"]["merges"] = _merge_alike(merges, vocabulary)
    content["model"]["ignore_merges"] = True  # a whole word that is a token needs no merges
    extended = Tokenizer.from_str(json.dumps(content))
    extended.add_tokens([AddedToken(part, normalized=False) for part in _schema_parts()])
    return extended


def extend_embeddings(weights: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Return embeddings (tokens, channels) for a tokenizer that has more tokens than `weights` has rows.

    A word without its space starts as the word with its space, moved as the words are that have both.
    """
    ids = tokenizer.get_vocab()
    known = len(weights)
    pairs = [(i, ids["Ġ" + text]) for text, i in ids.items() if "Ġ" + text in ids and ids["Ġ" + text] < known]
    old = [pair for pair in pairs if pair[0] < known]
    shift = (weights[[a for a, _ in old]] - weights[[b for _, b in old]]).mean(0)
    more = torch.randn(len(ids) - known, weights.shape[1]) * weights.std(0)
    for fresh, twin in pairs:
        if fresh >= known:
            more[fresh - known] = weights[twin] + shift
    return torch.cat((weights, more))
