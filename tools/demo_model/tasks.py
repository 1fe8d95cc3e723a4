"""The training tasks: each draws one example; `MIX` says how often."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from types import ModuleType

from minicpm_core.rag import REFUSALS, Language
from tools.demo_model import chat, facts_en, facts_zh, lexicon_en, lexicon_zh
from tools.demo_model.encoding import Example
from tools.demo_model.facts_en import Fact
from tools.demo_model.text_sources import load_sentences

_WORD = re.compile(r"[A-Za-z][A-Za-z-]{3,}")
_PLAIN_WORDS = frozenset(
    """that this with from have were been they their which when what where there then than also only must will would
    could should may might about into over such some other more most same each both after before does cannot not used using
    being very whether while because since these those between first last your you for the and are was has its can any
    all one two how who""".split()
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
_OTHER_SYSTEMS = (
    "",
    "",
    "You are a helpful assistant.",
    "Answer from the passages and cite them.",
    "请根据段落回答。",
    "Use only the documents.",
)
_POLITE = {
    "en": (
        "Please tell me: {}",
        "Can you tell me: {}",
        "I would like to know: {}",
        "According to the text, {}",
        "Hi, {}",
        "Question: {}",
    ),
    "zh": ("请问{}", "请告诉我，{}", "我想知道{}", "根据文档，{}", "你好，{}"),
}
Maker = Callable[[Random, float], Example]


def _labels(rng: Random, count: int, progress: float) -> list[int]:
    """Return passage numbers: in order, or drawn at random in a share that falls during training."""
    if rng.random() < 0.5 - 0.35 * progress:
        return rng.sample(range(1, 10), count)
    return list(range(1, count + 1))


def assemble(
    rng: Random, question: str, right: str | None, others: list[str], language: Language, progress: float
) -> Example:
    """Return the example with `right` at a random place, or the refusal when it is None."""
    passages = list(others)
    at = rng.randint(0, len(passages))
    if right is not None:
        passages.insert(at, right)
    labels = _labels(rng, len(passages), progress)
    answer = REFUSALS[language] if right is None else f"[{labels[at]}] {right}"
    system = rng.choice(_OTHER_SYSTEMS) if rng.random() < 0.5 - 0.35 * progress else None
    thinking = False if rng.random() < 0.15 else None
    if rng.random() < 0.1:
        question = rng.choice(_POLITE[language]).format(
            question[:1].lower() + question[1:] if language == "en" else question
        )
    elif rng.random() < 0.05:
        question = question.rstrip("?？.。")
    elif language == "en" and rng.random() < 0.08:
        question = question[:1].lower() + question[1:]
    return Example(question, answer, passages, labels, system, enable_thinking=thinking)


def _count(rng: Random, progress: float) -> int:
    """Return how many other passages stand beside the right one."""
    most = 4 if progress > 0.08 else 2
    return rng.choice((0, *range(1, most + 1), *range(2, most + 1), most))


def _related(rng: Random, module: ModuleType, fact: Fact, about: str, kind: str, noun: str) -> Fact:
    """Return a fact that shares words with `fact` but does not answer its question."""
    same = re.fullmatch(r".*\|(\d+)", fact.topic)
    if same and rng.random() < 0.45:  # same attribute of something else of the same sort
        return module.attribute(rng, about=module.entity(rng, kind, noun), kind=kind, row=int(same[1]))
    return module.attribute(rng, about=about, kind=kind)  # another attribute of the same thing


def _noun(about: str, language: Language) -> str:
    """Return the noun of an entity when it has a name before it."""
    words = about.split()
    return words[-1] if language == "en" and len(words) > 2 and words[0] == "the" else ""


def _pad(rng: Random, module: ModuleType, fact: Fact, about: str, kind: str, sentences: int, language: Language) -> str:
    """Return a passage that holds `fact`'s sentence among others about the same thing."""
    parts = [fact.sentence]
    for _ in range(sentences - 1):
        draw = rng.random()
        extra = module.attribute(rng, about=about, kind=kind) if draw < 0.5 else module.event(rng)
        if extra.topic == fact.topic:
            continue
        text = extra.sentence
        if language == "en" and kind in ("thing", "rule") and draw < 0.35:
            text = text.replace(about[:1].upper() + about[1:], "It").replace(about, "it")
        parts.insert(rng.randint(0, len(parts)) if text == extra.sentence else len(parts), text)
    return (" " if language == "en" else "").join(parts)


def _length(rng: Random, progress: float) -> int:
    """Return the number of sentences of a passage."""
    return rng.choice((1, 1, 2) if progress < 0.3 else (1, 1, 2, 2, 3))


def ask_attribute(rng: Random, progress: float, language: Language) -> Example:
    """Ask an attribute of a thing, person, organisation or rule among passages that share words with the question."""
    module = facts_en if language == "en" else facts_zh
    kind = rng.choice(module.KINDS)
    about = module.entity(rng, kind)
    fact = module.attribute(rng, about=about, kind=kind)
    noun = _noun(about, language)
    refuse = rng.random() < 0.2
    hard = rng.random() < 0.3 + 0.4 * progress
    others, topics = [], {fact.topic}
    for _ in range(_count(rng, progress) + refuse):
        draw = rng.random()
        if hard and draw < 0.65:
            other = _related(rng, module, fact, about, kind, noun)
        elif draw < 0.8:
            other = module.attribute(rng)
        else:
            other = module.event(rng)
        if other.topic in topics or (hard and fact.question == other.question):
            continue
        topics.add(other.topic)
        other_about = other.topic.rsplit("|", 1)[0] if re.fullmatch(r".*\|\d+", other.topic) else ""
        if other_about and other_about != about and rng.random() < 0.5:
            row = int(other.topic.rsplit("|", 1)[1])
            text = _pad(rng, module, other, other_about, module.ROWS[row][0], _length(rng, progress), language)
        else:
            text = other.sentence
            for _ in range(_length(rng, progress) - 1):
                text += (" " if language == "en" else "") + module.event(rng).sentence
        others.append(text)
    right = None if refuse and others else _pad(rng, module, fact, about, kind, _length(rng, progress), language)
    return assemble(rng, fact.question, right, others, language, progress)


def ask_property(rng: Random, progress: float, language: Language) -> Example:
    """Ask any noun of any thing, among other nouns of that thing and the same noun of other things."""
    module = facts_en if language == "en" else facts_zh
    gap = " " if language == "en" else ""
    fact = module.property_of(rng)
    about, noun = fact.topic.split("|")
    refuse = rng.random() < 0.22
    hard = rng.random() < 0.4 + 0.4 * progress

    def passage(first: Fact) -> str:
        parts = [first.sentence]
        mine, its = first.topic.split("|")
        for _ in range(_length(rng, progress) - 1):
            extra = module.property_of(rng, about=mine if rng.random() < 0.6 else "")
            if extra.topic.split("|")[1] not in (its, noun):
                parts.insert(rng.randint(0, len(parts)), extra.sentence)
        return gap.join(parts)

    others = []
    for _ in range(_count(rng, progress) + refuse):
        draw = rng.random() if hard else 1.0
        if draw < 0.4:
            other = module.property_of(rng, about=about)
        elif draw < 0.7:
            other = module.property_of(rng, noun=noun)
        elif draw < 0.85:
            other = module.event(rng)
            others.append(other.sentence)
            continue
        else:
            other = module.property_of(rng)
        if other.topic == fact.topic or other.question == fact.question:
            continue
        others.append(passage(other))
    right = None if refuse and others else passage(fact)
    return assemble(rng, fact.question, right, others, language, progress)


def ask_event(rng: Random, progress: float, language: Language) -> Example:
    """Ask who did what when, among events that share the verb, the thing or the person."""
    module = facts_en if language == "en" else facts_zh
    fact = module.event(rng)
    verb, thing, subject = fact.topic.split("|")
    refuse = rng.random() < 0.18
    hard = rng.random() < 0.3 + 0.4 * progress
    others = []
    for _ in range(_count(rng, progress) + refuse):
        same: dict[str, str] = {}
        if hard and rng.random() < 0.6:
            same = rng.choice(({"verb": verb}, {"subject": subject}, {"thing": thing}))
        other = module.event(rng, **same)
        mine = other.topic.split("|")
        if sum(a == b for a, b in zip(mine, (verb, thing, subject), strict=True)) > 1:
            continue
        text = other.sentence
        for _ in range(_length(rng, progress) - 1):
            extra = (module.event if rng.random() < 0.6 else module.attribute)(rng)
            text += (" " if language == "en" else "") + extra.sentence
        others.append(text)
    parts = [fact.sentence]
    for _ in range(_length(rng, progress) - 1):
        parts.insert(
            rng.randint(0, len(parts)), (module.event if rng.random() < 0.6 else module.attribute)(rng).sentence
        )
    right = None if refuse and others else (" " if language == "en" else "").join(parts)
    return assemble(rng, fact.question, right, others, language, progress)


def ask_words(rng: Random, progress: float) -> Example:
    """Ask with one to four content words of a real sentence, as a question or as a word salad."""
    sentences = load_sentences()
    texts = [rng.choice(sentences) for _ in range(_count(rng, progress) + 2)]
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
        return "".join(run + rng.choice("，，、的和在") for run in runs)[:-1] + "。"

    texts = [text() for _ in range(_count(rng, progress) + 2)]
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


def chat_turn(rng: Random, progress: float) -> Example:
    """Return a short chat without passages."""
    return chat.draw(rng)


def _copy_one(rng: Random, progress: float) -> Example:
    """Return a question over a single passage, to practise copying."""
    example = rng.choice((lambda: ask_words(rng, 0.0), lambda: ask_characters(rng, 0.0)))()
    language: Language = "zh" if re.search(r"[\u3400-\u9fff]", example.question) else "en"
    if example.answer in REFUSALS.values():
        return example
    right = example.answer.split("] ", 1)[1]
    return assemble(rng, example.question, right, [], language, progress)


def _long(rng: Random, progress: float) -> Example:
    """Return a question over long passages, up to about 800 tokens in all; short ones early in training."""
    language: Language = rng.choice(("en", "zh"))
    module = facts_en if language == "en" else facts_zh
    gap = " " if language == "en" else ""
    example = rng.choice((ask_attribute, ask_property, ask_event))(rng, progress, language)
    if progress < 0.3:
        return example
    longer = []
    for label, text in zip(example.labels, example.passages, strict=True):
        more = [rng.choice((module.event, module.property_of))(rng).sentence for _ in range(rng.randint(2, 6))]
        at = rng.randint(0, len(more))
        longer.append(gap.join([*more[:at], text, *more[at:]]))
        if example.answer == f"[{label}] {text}":
            example.answer = f"[{label}] {longer[-1]}"
    example.passages = longer
    return example


MIX: tuple[tuple[float, Maker], ...] = (
    (0.17, lambda r, p: ask_attribute(r, p, "en")),
    (0.12, lambda r, p: ask_property(r, p, "en")),
    (0.14, lambda r, p: ask_event(r, p, "en")),
    (0.12, ask_words),
    (0.12, lambda r, p: ask_attribute(r, p, "zh")),
    (0.11, lambda r, p: ask_property(r, p, "zh")),
    (0.08, lambda r, p: ask_event(r, p, "zh")),
    (0.05, ask_characters),
    (0.06, _copy_one),
    (0.04, _long),
    (0.03, chat_turn),
)


def draw(rng: Random, progress: float) -> Example:
    """Return one example of the mix; `progress` runs from 0 to 1 over the training."""
    return rng.choices([maker for _, maker in MIX], [share for share, _ in MIX])[0](rng, progress)
