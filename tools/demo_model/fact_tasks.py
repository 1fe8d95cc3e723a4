"""Questions on generated facts: attributes, any noun of any thing, events; and long passages."""

from __future__ import annotations

import re
from random import Random
from types import ModuleType

from minicpm_core.rag import Language
from tools.demo_model import facts_en, facts_zh
from tools.demo_model.assembling import assemble, draw_count, draw_length
from tools.demo_model.encoding import Example
from tools.demo_model.facts_en import Fact


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
        extra = module.attribute(rng, about=about, kind=kind) if draw < 0.75 else module.event(rng)
        if extra.topic == fact.topic:
            continue
        text = extra.sentence
        if language == "en" and kind in ("thing", "rule") and draw < 0.25:
            text = text.replace(about[:1].upper() + about[1:], "It").replace(about, "it")
        parts.insert(rng.randint(0, len(parts)) if text == extra.sentence else len(parts), text)
    return (" " if language == "en" else "").join(parts)


def ask_attribute(rng: Random, progress: float, language: Language) -> Example:
    """Ask an attribute of a thing, person, organisation or rule among passages that share words with the question."""
    module = facts_en if language == "en" else facts_zh
    kind = rng.choice(module.KINDS)
    about = module.entity(rng, kind)
    fact = module.attribute(rng, about=about, kind=kind)
    noun = _noun(about, language)
    refuse = rng.random() < 0.26
    hard = rng.random() < 0.5 + 0.4 * progress
    others, topics = [], {fact.topic}
    for _ in range(draw_count(rng, progress) + refuse):
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
        if other_about and other_about != about and rng.random() < 0.75:
            row = int(other.topic.rsplit("|", 1)[1])
            text = _pad(rng, module, other, other_about, module.ROWS[row][0], draw_length(rng, progress), language)
        else:
            text = other.sentence
            for _ in range(draw_length(rng, progress) - 1):
                text += (" " if language == "en" else "") + module.event(rng).sentence
        others.append(text)
    right = None if refuse and others else _pad(rng, module, fact, about, kind, draw_length(rng, progress), language)
    return assemble(rng, fact.question, right, others, language, progress)


def ask_property(rng: Random, progress: float, language: Language) -> Example:
    """Ask any noun of any thing, among other nouns of that thing and the same noun of other things."""
    module = facts_en if language == "en" else facts_zh
    gap = " " if language == "en" else ""
    fact = module.property_of(rng)
    about, noun = fact.topic.split("|")
    refuse = rng.random() < 0.28
    hard = rng.random() < 0.6 + 0.3 * progress

    def passage(first: Fact) -> str:
        parts = [first.sentence]
        mine, its = first.topic.split("|")
        for _ in range(draw_length(rng, progress) - 1):
            extra = module.property_of(rng, about=mine if rng.random() < 0.7 else "")
            if extra.topic.split("|")[1] not in (its, noun):
                parts.insert(rng.randint(0, len(parts)), extra.sentence)
        return gap.join(parts)

    others = []
    for _ in range(draw_count(rng, progress) + refuse):
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
    refuse = rng.random() < 0.26
    hard = rng.random() < 0.5 + 0.4 * progress
    others = []
    for _ in range(draw_count(rng, progress) + refuse):
        same: dict[str, str] = {}
        if hard and rng.random() < 0.6:
            same = rng.choice(({"verb": verb}, {"subject": subject}, {"thing": thing}))
        other = module.event(rng, **same)
        mine = other.topic.split("|")
        if sum(a == b for a, b in zip(mine, (verb, thing, subject), strict=True)) > 1:
            continue
        text = other.sentence
        for _ in range(draw_length(rng, progress) - 1):
            extra = (module.event if rng.random() < 0.6 else module.attribute)(rng)
            text += (" " if language == "en" else "") + extra.sentence
        others.append(text)
    parts = [fact.sentence]
    for _ in range(draw_length(rng, progress) - 1):
        parts.insert(
            rng.randint(0, len(parts)), (module.event if rng.random() < 0.6 else module.attribute)(rng).sentence
        )
    right = None if refuse and others else (" " if language == "en" else "").join(parts)
    return assemble(rng, fact.question, right, others, language, progress)


def ask_long(rng: Random, progress: float) -> Example:
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
