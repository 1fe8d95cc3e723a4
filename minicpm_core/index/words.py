"""Words for the lexical search: Latin words folded to a stem, Chinese and Japanese as pairs of characters."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

CJK = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_RUN = re.compile(rf"(?P<cjk>[{CJK}]+)|(?P<number>\d+(?:[.,]\d+)*(?![^\W_{CJK}]))|(?P<word>[^\W_{CJK}]+)")
_HAS_CJK = re.compile(f"[{CJK}]")

_ENGLISH_STOP = frozenset(
    "a about according after all also am an and any are as at be because been before being between both but by "
    "can could did do does doing during each ever for from get got had has have having he her here hers him his "
    "how i if in into is it its itself just let many may me might more most much must my no nor not of off on one "
    "or other our out over own please same shall she should so some such tell than that the their them then there "
    "these they this those through to too under until up us very was we were what when where which while who whom "
    "whose why will with would you your s t d ll m re ve don doesn didn isn aren wasn weren won wouldn shouldn "
    "couldn".split()
)
_CHINESE_STOP = (
    "什么时候 什么地方 为什么 是不是 有没有 能不能 可不可以 需不需要 要不要 请告诉我 告诉我 "
    "请问一下 请问 什么样 是什么 什么 多少 多久 多长 怎么样 怎么办 怎么 怎样 如何 哪里 哪儿 "
    "哪个 哪些 哪一 哪种 哪 谁 几个 吗 呢 吧 啊 呀 嘛 的 了 是 在 和 与 我们 你们 他们 "
    "它们 我 你 他 她 它 几 要 有 能 会 多长时间 什么时间 哪一天 哪一年 哪天 哪年 这个 那个 "
    "这些 那些 是否 应该 可以 需要 根据 关于 一下 以及 或者 还是 如果 因为 所以 但是".split()
)
# Words that hold a stop character and must not be taken apart.
_CHINESE_KEEP = (
    "几何 几率 茶几 重要 主要 要求 要点 必要 概要 摘要 纪要 要素 功能 性能 能力 能源 节能 "
    "智能 可能 能量 电能 会议 社会 机会 会员 协会 学会 会计 委员会 开会 大会 会长 工会 有效 "
    "有限 所有 拥有 有关 有机 含有 持有 国有 有害 目的 标的 的确 的士 了解 了结 终了 和平 "
    "和解 和谐 和睦 温和 缓和 饱和 总和 共和 参与 赠与 与会 存在 在线 在职 在校 在于 内在 "
    "潜在 所在 自我 其他 其它 吉他 是非 谁的 哪吒".split()
)
_CHINESE = re.compile(
    "("
    + "|".join(sorted(_CHINESE_KEEP, key=len, reverse=True))
    + ")|"
    + "|".join(sorted(_CHINESE_STOP, key=len, reverse=True)),
)
# The measure word that Chinese uses or leaves out as it likes: 每个月 and 每月.
_MEASURE = re.compile(r"(?<=[一二三四五六七八九十百千万两每几半数整\d])个(?!人)")
_VOWEL = re.compile("[aeiouy]")


@dataclass(frozen=True)
class Words:
    """The search terms of a text.

    Args:
        words: stems and pairs of CJK characters, in order, with repetitions.
        characters: single CJK characters, in order; weaker evidence than the pairs.
        alone: those characters that stand in no pair.
    """

    words: tuple[str, ...]
    characters: tuple[str, ...]
    alone: tuple[str, ...]


def passage_words(text: str) -> Words:
    """Return the terms that a passage is found by."""
    words: list[str] = []
    runs: list[str] = []
    for run in _RUN.finditer(_normalise(text)):
        if run["cjk"]:
            runs.append(run["cjk"])
        else:
            words.append(_term(run))
    return _terms(words, runs)


def question_words(text: str) -> Words:
    """Return the terms that a question asks for: without question words and particles, unless nothing else is left."""
    words: list[str] = []
    runs: list[str] = []
    for run in _RUN.finditer(_normalise(text)):
        if run["cjk"]:
            runs += _CHINESE.sub(lambda stop: stop[1] or " ", run["cjk"]).split()
        elif run.group() not in _ENGLISH_STOP:
            words.append(_term(run))
    return _terms(words, runs) if words or runs else passage_words(text)


def content_words(text: str) -> list[str]:
    """Return the words of a text as they stand there, without question words and particles; Chinese in runs."""
    found: list[str] = []
    for run in _RUN.finditer(unicodedata.normalize("NFKC", text)):
        if run["cjk"]:
            found += _CHINESE.sub(lambda stop: stop[1] or " ", run["cjk"]).split()
        elif run.group().casefold() not in _ENGLISH_STOP:
            found.append(run.group())
    return list(dict.fromkeys(found))


def coverage(question: Words, passage: Words) -> float:
    """Return the share of the question's distinct terms that the passage holds, 0 to 1."""
    asked = {*question.words, *question.alone}
    held = {*passage.words, *passage.characters}
    return len(asked & held) / len(asked) if asked else 0.0


def has_cjk(text: str) -> bool:
    """Tell whether the text holds Chinese, Japanese or Korean characters."""
    return bool(_HAS_CJK.search(text))


def _normalise(text: str) -> str:
    return _MEASURE.sub("", unicodedata.normalize("NFKC", text).casefold())


def _terms(words: list[str], runs: list[str]) -> Words:
    pairs = [run[n : n + 2] for run in runs for n in range(len(run) - 1)]
    return Words(tuple(words + pairs), tuple("".join(runs)), tuple(run for run in runs if len(run) == 1))


def _term(run: re.Match[str]) -> str:
    return run["number"].replace(",", "") if run["number"] else fold(run["word"])


def fold(word: str) -> str:
    """Return a light English stem: 'batteries' and 'battery', 'charging', 'charged' and 'charge' meet.

    Follows the S-stemmer (Harman 1991, How effective is suffixing?) with -ing, -ed and -ly added.
    """
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y" if len(word) > 4 else word[:-1]
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ing", "ied", "ed", "ly"):
        stem = word[: -len(suffix)]
        if word.endswith(suffix) and len(stem) >= (4 if suffix == "ly" else 3) and _VOWEL.search(stem):
            if suffix == "ied":
                return stem + "y"
            if suffix != "ly" and stem[-1] == stem[-2] and stem[-1] not in "lsz":
                stem = stem[:-1]
            word = stem
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word
