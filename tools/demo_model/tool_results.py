# ruff: noqa: E501 (tables)
"""What tools give back in training, and the words that tell it: a value in a sentence, a sentence or lines as they are."""

from __future__ import annotations

import json
from random import Random

from minicpm_core.rag import Language
from tools.demo_model import lexicon_en, lexicon_zh
from tools.demo_model.text_sources import load_sentences
from tools.demo_model.tool_values import KINDS


def draw_result(rng: Random, language: Language) -> tuple[str, str]:
    """Return what a tool gives back and the sentence that tells it."""
    said = "The result is {}." if language == "en" else "结果是{}。"
    draw = rng.random()
    if draw < 0.4:
        kinds = ("int", "float", "float", "name", "code", "date", "city", "one", "bool", "time", "path")
        kind = rng.choice(kinds if language == "en" else (*kinds, "zh_name", "zh_text", "zh_city"))
        if kind == "one":
            value = rng.choice((*lexicon_en.THINGS, *lexicon_en.ADJECTIVES, *lexicon_zh.THINGS))
        else:
            value = (
                rng.choice(("true", "false", "True", "ok", "done", "yes", "no")) if kind == "bool" else KINDS[kind](rng)
            )
        if rng.random() < 0.15 and kind in ("int", "float"):
            value += rng.choice((" EUR", " °C", "%", " km", " USD", "°C", " degrees"))
        return value, said.format(value)
    if draw < 0.52:
        key = rng.choice(
            (
                "result",
                "result",
                "value",
                rng.choice(lexicon_en.ABSTRACT),
                rng.choice(("temperature", "sum", "total", "answer", "status", "price")),
            )
        )
        kind = rng.choice(("int", "float", "name", "city"))
        value = KINDS[kind](rng)
        shown = value if kind in ("int", "float") else json.dumps(value, ensure_ascii=False)
        if language == "en":
            return f'{{"{key}": {shown}}}', f"The {key} is {value}."
        return f'{{"{key}": {shown}}}', f"结果是{value}。"
    if draw < 0.56:
        content = json.dumps(
            {
                rng.choice(lexicon_en.ABSTRACT): KINDS[rng.choice(("name", "city"))](rng)
                for _ in range(rng.randint(2, 3))
            },
            ensure_ascii=False,
        )
        return (content, said.format(content)) if content.count(":") > 1 else draw_result(rng, language)
    if draw < 0.66:
        text = rng.choice(load_sentences())[: rng.randint(20, 70)].rsplit(" ", 1)[0]
        content = (
            rng.choice(("Error: ", "Error: ", "ValueError: ", "Error executing tool: ", "Failed: "))
            + text
            + rng.choice((".", "", ""))
        )
        return content, content
    if draw < 0.76:
        lines = [
            rng.choice((KINDS["words"], KINDS["quoted"], KINDS["person"] if "person" in KINDS else KINDS["name"]))(rng)
            for _ in range(rng.randint(2, 4))
        ]
        if language == "zh" or rng.random() < 0.2:
            lines = [KINDS["zh_text"](rng) + rng.choice(("", "。")) for _ in lines]
        content = "\n".join(lines)
        return content, content
    if language == "zh" and draw < 0.95:
        module_text = KINDS["zh_text"](rng)
        form = rng.choice(
            (
                "{n}的{t}，{c}。",
                "已{t}：{n}。",
                "{c}今天{t}，{d}度。",
                "{t}成功。",
                "{n}在{c}，编号{k}。",
                "{c}：晴，{d}度。",
            )
        )
        content = form.format(
            n=KINDS["zh_name"](rng),
            t=module_text,
            c=KINDS["zh_city"](rng),
            d=rng.randint(-10, 40),
            k=KINDS["code"](rng),
        )
        return content, content
    form = rng.choice((
        "It is {w} in {c}.", "It's {w}.", "{n} was added to the {t}.", "Created {t}: {n} - {t2}.", "The {t} of {n} is {v}.", "{c}: {w}, {v} degrees.",
        "Sent to {n}.", "Order {k} is on its way to {c}.", "The {t} is {w}.", "{n} lives in {c}.", "Saved as {p}.", "No {t} was found.", "{S}", "{S}",
    ))  # fmt: skip
    content = form.format(
        w=rng.choice(("sunny", "rainy", "cloudy", "windy", "cold", "warm", rng.choice(lexicon_en.ADJECTIVES))), c=KINDS["city"](rng), n=KINDS["name"](rng),
        t=rng.choice(lexicon_en.THINGS), t2=KINDS["words"](rng), v=KINDS["float"](rng), k=KINDS["code"](rng), p=KINDS["path"](rng), S=rng.choice(load_sentences())[:160],
    )  # fmt: skip
    return content, content
