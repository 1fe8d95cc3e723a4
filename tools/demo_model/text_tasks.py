"""Questions by words of a text: sentences of the standard library, invented words, random Chinese characters."""

from __future__ import annotations

import re
from random import Random

from minicpm_core.rag import REFUSALS, Language
from tools.demo_model import facts_en, lexicon_en, lexicon_zh
from tools.demo_model.assembling import assemble, draw_count
from tools.demo_model.encoding import Example
from tools.demo_model.fact_tasks import ask_event
from tools.demo_model.text_sources import load_sentences
from tools.demo_model.tool_values import chinese, foreign, japanese

_WORD = re.compile(r"[A-Za-z][A-Za-z-]{3,}")
_PLAIN_WORDS = frozenset(
    """that this with from have were been they their which when what where there then than also only must will would
    could should may might about into over such some other more most same each both after before does cannot not
    used using being very whether while because since these those between first last your you for the and are was
    has its can any all one two how who""".split()
)
_WORD_QUESTIONS = (
    "What about {a} and {b}?", "What does the text say about {a}?", "How are {a} and {b} related?", "{a} {b}",
    "{a} {b} {c}", "Tell me about the {a} of {b}.", "Which {a} has {b}?", "Is there something on {a}, {b} and {c}?",
    "What is {a} {b}?", "When is {a} {b}?", "How do I {a} the {b}?", "Where is the {a} {b}?", "Who may {a} {b}?",
    "Why does {a} {b} {c}?", "What happens if {a} {b}?", "Does {a} need {b}?", "{b} of {a}?", "How many {a} {b}?",
)  # fmt: skip
_ZH_QUESTIONS = (
    "{a}和{b}怎么样？", "关于{a}，文中说了什么？", "{a}与{b}有什么关系？", "{a}{b}", "什么是{a}？", "{a}在哪里？",
    "{b}的{a}是什么？", "谁{a}{b}？", "怎样{a}{b}？",
    "为什么{a}{b}？", "{a}什么时候{b}？", "{a}有多少？", "请介绍{a}。",
)  # fmt: skip


def ask_words(rng: Random, progress: float) -> Example:
    """Ask with one to four content words of a real sentence, as a question or as a word salad."""
    sentences = load_sentences()
    texts = [rng.choice(sentences) for _ in range(draw_count(rng, progress) + 2)]
    if rng.random() < 0.3:
        texts = [_nonsense(rng) for _ in texts]
    right, *others = texts
    known = [w for w in dict.fromkeys(_WORD.findall(right)) if w.lower() not in _PLAIN_WORDS]
    elsewhere = " ".join(others).lower()
    rare = [w for w in known if w.lower() not in elsewhere]
    if len(rare) < 2:
        rare = [*rare, *known][:3]
    if not rare:
        return ask_event(rng, progress, "en")
    words = rng.sample(rare, min(len(rare), rng.choice((1, 2, 2, 3, 3, 4))))
    if rng.random() < 0.5 and len(known) > 2:
        words.append(rng.choice(known))
    words = [_inflect(rng, w) for w in words]
    refuse = rng.random() < 0.15 and len(others) > 0
    if refuse and rng.random() < 0.4:
        words[-1] = (_WORD.findall(rng.choice(others)) or words)[-1]
    if rng.random() < 0.3:
        rng.shuffle(words)
        question = " ".join(words)
    else:
        slots = dict(zip("abc", (words * 3)[:3], strict=True))
        fits = [q for q in _WORD_QUESTIONS if sum(f"{{{k}}}" in q for k in "abc") <= len(words)]
        question = rng.choice(fits or _WORD_QUESTIONS[1:2]).format(**slots)
    if len(others) > 4:
        others = others[:4]
    return assemble(rng, question[:1].upper() + question[1:], None if refuse else right, others, "en", progress)


def _inflect(rng: Random, word: str) -> str:
    """Return `word` in another number or case now and then."""
    draw = rng.random()
    if draw < 0.12:
        return word[:-1] if word.endswith("s") and not word.endswith("ss") else lexicon_en.plural(word)
    return word.lower() if draw < 0.3 else word


def _nonsense(rng: Random) -> str:
    """Return words, invented names and numbers in random order, to practise copying."""
    pools = (lexicon_en.THINGS, lexicon_en.ABSTRACT, lexicon_en.ADJECTIVES, lexicon_en.FUNCTIONS, lexicon_en.LAST_NAMES)
    words = [rng.choice(rng.choice(pools)) for _ in range(rng.randint(5, 22))]
    for _ in range(rng.randint(1, 5)):
        if rng.random() < 0.25:
            words.insert(rng.randint(0, len(words)), rng.choice((foreign, foreign, japanese, chinese))(rng))
            continue
        kind = rng.random()
        text = (
            lexicon_en.invent_name(rng) if kind < 0.5 else facts_en.fill("{price}", {}, rng) if kind < 0.65
            else facts_en.fill("{date}", {}, rng) if kind < 0.8 else facts_en.fill("{email}", {}, rng) if kind < 0.9
            else f"({rng.randint(0, 9999)}/{rng.randint(0, 99)}%)"
        )  # fmt: skip
        words.insert(rng.randint(0, len(words)), text)
    marked = [w + rng.choice((",", ";", ":", " -")) if rng.random() < 0.08 else w for w in words]
    text = " ".join(marked)
    return text[:1].upper() + text[1:] + "."


_LEVEL_ONE = "".join(
    bytes((high, low)).decode("gb2312")
    for high in range(0xB0, 0xD8)
    for low in range(0xA1, 0xFF)
    if (high, low) < (0xD7, 0xFA)
)


def ask_characters(rng: Random, progress: float) -> Example:
    """Ask with runs of characters of a text of random Chinese characters."""

    def text() -> str:
        pool = lexicon_zh.COMMON[:1500] if rng.random() < 0.5 else _LEVEL_ONE
        runs = ["".join(rng.choices(pool, k=rng.randint(2, 8))) for _ in range(rng.randint(1, 6))]
        if rng.random() < 0.4:
            runs.insert(rng.randint(0, len(runs)), str(rng.randint(1, 9999)))
        if rng.random() < 0.4:
            runs.insert(rng.randint(0, len(runs)), rng.choice(lexicon_zh.THINGS))
        if rng.random() < 0.5:
            runs.insert(rng.randint(0, len(runs)), rng.choice((japanese, chinese, foreign))(rng))
        return "".join(run + rng.choice("，，、的和在") for run in runs)[:-1] + "。"

    texts = [text() for _ in range(draw_count(rng, progress) + 2)]
    right, *others = texts

    def run(source: str) -> str:
        at = rng.randrange(max(1, len(source) - 3))
        return re.sub(r"[，、。]", "", source[at : at + rng.randint(2, 5)]) or source[:2]

    refuse = rng.random() < 0.15
    question = rng.choice(_ZH_QUESTIONS).format(a=run(right), b=run(right))
    if rng.random() < 0.15:
        question = run(right) + run(right)
    if not re.search(r"[\u3400-\u9fff]", question):
        question = "什么是" + question
    return assemble(rng, question, None if refuse else right, others[:4], "zh", progress)


def copy_one(rng: Random, progress: float) -> Example:
    """Return a question over a single passage, to practise copying."""
    example = rng.choice((lambda: ask_words(rng, 0.0), lambda: ask_characters(rng, 0.0)))()
    language: Language = "zh" if re.search(r"[\u3400-\u9fff]", example.question) else "en"
    if example.answer in REFUSALS.values():
        return example
    right = example.answer.split("] ", 1)[1]
    return assemble(rng, example.question, right, [], language, progress)
