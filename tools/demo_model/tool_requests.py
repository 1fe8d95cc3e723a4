# ruff: noqa: E501 (tables)
"""Requests that name a tool's purpose and its values, drawn from templates or put together from clauses."""

from __future__ import annotations

import json
import re
from random import Random

from tools.demo_model import lexicon_en, lexicon_zh
from tools.demo_model.tool_schemas import Call, Tool
from tools.demo_model.tool_values import KINDS, any_word

_EN_QUOTES = ("'{}'", "'{}'", '"{}"', '"{}"', "“{}”", "`{}`")
_ZH_QUOTES = ("“{}”", "“{}”", "「{}」", "《{}》", "'{}'", '"{}"', "‘{}’")
_CODE = ("print({a})", "print({a} + {b})", "len('{w}')", "x = {a}; print(x)", "sum([{a}, {b}])", "max({a}, {b})",
         "print({a} < {b})", "'{w}'.upper()", "range({a})")  # fmt: skip
_EN_POLITE = (
    "Please {}",
    "Can you {}",
    "Could you {}",
    "I want you to {}",
    "Now {}",
    "Hi, {}",
    "Ok, {}",
    "I'd like you to {}",
)
_ZH_POLITE = ("请{}", "帮我{}", "请帮我{}", "麻烦你{}", "现在{}", "你好，{}", "能不能{}")
_EN_DIRECT = (
    "Call {t} with {eq}.", "Use {t} with {eq}.", "What is the value of {t}({pos})? Use the tool.", "{t}({pos})",
    "{t}({eq})", "What is {t}({pos})?", "Use the tool {t} with {kv}.", "Run {t} with {kv}.", "Please call {t}({pos}).",
    "What does {t}({pos}) return?", "Use the {t} tool: {eq}", "Call the function {t} with {kv}.", "Evaluate {t}({pos}).",
    "Call the tool {t} for {kv}.",
)  # fmt: skip
_EN_DIRECT_NONE = (
    "Call {t}.", "Use {t}.", "What is the value of {t}()? Use the tool.", "Run the tool {t}.", "{t}()", "What is {t}()?",
    "Please use the {t} tool.", "Call the function {t}.", "What does {t} return?", "Use the tool {t}, please.",
)  # fmt: skip
_ZH_DIRECT = (
    "调用{t}，{eq}。", "使用工具{t}，参数{kv}。", "{t}({pos})的值是多少？请使用工具。", "请调用{t}({pos})。", "用{t}处理{kv}。",
    "{t}({pos})等于多少？", "运行{t}，{kv}。",
)  # fmt: skip
_ZH_DIRECT_NONE = ("调用{t}。", "使用工具{t}。", "{t}()的值是多少？请使用工具。", "请运行{t}。", "请使用{t}工具。")


def draw_value(rng: Random, kind: str, language: str) -> tuple[str, str]:
    """Return a value as the request says it and as the call shows it."""
    if kind.startswith("enum("):
        value = rng.choice(kind[5:-1].split(";"))
        return value, value
    if kind.startswith("list("):
        parts = [draw_value(rng, kind[5:-1], language)[1] for _ in range(rng.choice((2, 3, 3, 4)))]
        last = rng.choice((" and ", ", ", ", and ")) if language == "en" else rng.choice(("和", "、"))
        said = (", " if language == "en" else "、").join(parts[:-1]) + last + parts[-1]
        numeric = kind[5:-1] in ("int", "float")
        return said, "[" + ", ".join(p if numeric else json.dumps(p, ensure_ascii=False) for p in parts) + "]"
    if kind in ("flag", "onoff", "zh_onoff"):
        on = rng.random() < 0.5
        said = {"flag": ("no", "yes"), "onoff": ("off", "on"), "zh_onoff": ("关闭", "打开")}[kind][on]
        if kind == "flag" and rng.random() < 0.5:
            said = ("false", "true")[on]
        return said, ("false", "true")[on]
    if kind in ("quoted", "zh_quoted", "program", "question"):
        if kind == "program":
            shown = rng.choice(_CODE).format(
                a=rng.randrange(100), b=rng.randrange(100), w=rng.choice(lexicon_en.THINGS)
            )
        else:
            pick = (
                rng.choice(("quoted", "words", "name"))
                if kind in ("quoted", "question")
                else rng.choice(("zh_text", "zh_name"))
            )
            shown = KINDS[pick](rng)
        if kind == "question" or (kind == "quoted" and rng.random() < 0.25):
            shown = shown.rstrip(".!?") + rng.choice("??!.")
        marks = [q for q in (_EN_QUOTES if language == "en" else _ZH_QUOTES) if not set(q) - set("{}") & set(shown)]
        return (rng.choice(marks) if marks else "“{}”").format(shown), shown
    if kind == "phone":
        shown = rng.choice(
            (
                f"+{rng.randint(1, 99)} {rng.randint(10, 999)} {rng.randint(1000, 9999999)}",
                f"{rng.randint(100, 999)}-{rng.randint(1000, 9999)}",
            )
        )
        return shown, shown
    if kind == "one":
        shown = rng.choice(
            (
                rng.choice(lexicon_en.THINGS),
                rng.choice(lexicon_en.ADJECTIVES),
                lexicon_en.invent_name(rng),
                any_word(rng),
                any_word(rng),
            )
        )
    elif kind == "zh_thing":
        shown = rng.choice(lexicon_zh.THINGS)
    else:
        shown = KINDS[kind](rng)
    return shown, shown


def _spaced(template: str, key: str, said: str) -> str:
    """Return `said` with a space to each Chinese character beside its slot, as many people write it."""
    before, _, after = template.partition(f"{{{key}}}")
    return " " * ("\u4e00" <= before[-1:] <= "\u9fff") + said + " " * ("\u4e00" <= after[:1] <= "\u9fff")


def fill_request(rng: Random, tool: Tool, template: str) -> tuple[str, Call]:
    """Return the request of `template` with drawn values, and the call that it asks for."""
    template = re.sub(r"\[([^\]]*)\]", lambda m: m[1] if rng.random() < 0.5 else "", template)
    arguments: dict[str, str] = {}
    said: dict[str, str] = {"tool": tool.name}
    for p in tool.parameters:
        if f"{{{p.key}}}" in template:
            twice = [q.key for q in tool.parameters if q.kind == p.kind and q.key in said]
            if twice and rng.random() < 0.1:
                said[p.key], arguments[p.key] = said[twice[0]], arguments[twice[0]]
                continue
            said[p.key], arguments[p.key] = draw_value(rng, p.kind, tool.language)
            if tool.language == "zh" and said[p.key].isascii() and rng.random() < 0.3:
                said[p.key] = _spaced(template, p.key, said[p.key])
    for key, shown in arguments.items():  # a value may not hold the quotation mark that the template puts around it
        for mark in "'\"“":
            if f"{mark}{{{key}}}" in template and mark in shown:
                template = template.replace(f"{mark}{{{key}}}{mark}", f"{{{key}}}")
    text = re.sub(r"\{(\w+)\}", lambda m: said[m[1]], template)
    return text, Call(tool, arguments)


def direct_request(rng: Random, tool: Tool, language: str) -> tuple[str, Call]:
    """Return a request that names the function itself, and its call."""
    arguments, said, typed = {}, {}, {}
    for p in tool.parameters:
        if p.required or rng.random() < 0.4:
            value, shown = draw_value(rng, p.kind, language)
            arguments[p.key], said[p.key] = shown, value
            literal = p.type != "string" or p.kind in ("quoted", "zh_quoted", "program", "question")
            typed[p.key] = (
                shown
                if p.type != "string"
                else value
                if literal
                else f"'{shown}'"
                if "'" not in shown
                else f'"{shown}"'
            )
    if not arguments:
        return rng.choice(_EN_DIRECT_NONE if language == "en" else _ZH_DIRECT_NONE).format(t=tool.name), Call(tool)
    template = rng.choice(_EN_DIRECT if language == "en" else _ZH_DIRECT)
    gap = rng.choice((" = ", "=", "="))
    joint = (
        rng.choice((", ", " and "))
        if language == "en" and "{t}(" not in template
        else ", "
        if language == "en"
        else "，"
    )
    quote = rng.random() < 0.5
    spaced = {k: k.replace("_", " ") if rng.random() < 0.6 else k for k in arguments}
    between = " " if language == "en" else "为"
    text = template.format(
        t=tool.name,
        eq=joint.join(
            f"{k}{gap}{typed[k] if quote or ' ' in said[k] or ',' in said[k] else said[k]}" for k in arguments
        ),
        kv=joint.join(
            f"{spaced[k]}{between}{typed[k] if ' ' in said[k] or ',' in said[k] else said[k]}" for k in arguments
        ),
        pos=", ".join(typed[k] for k in arguments),
    )
    if "({pos})" in template and list(arguments) != [p.key for p in tool.parameters][: len(arguments)]:
        return direct_request(rng, tool, language)
    return text, Call(tool, arguments)


def make_request(rng: Random, tool: Tool) -> tuple[str, Call]:
    """Return a request for `tool` in its language, and the call."""
    language = tool.language
    if rng.random() < 0.1 or not tool.requests:
        return direct_request(rng, tool, language)
    text, call = fill_request(rng, tool, rng.choice(tool.requests))
    if rng.random() < 0.1 and text[:1].isalpha():
        lowered = text if text[:2].isupper() or language == "zh" else text[:1].lower() + text[1:]
        question = text.split(" ")[0] in ("What", "How", "Is", "What's", "Where", "Who", "Which")
        if language == "zh" or not question:
            text = rng.choice(_EN_POLITE if language == "en" else _ZH_POLITE).format(lowered)
    elif rng.random() < 0.06:
        text = text.rstrip(".?。？")
    return text, call
