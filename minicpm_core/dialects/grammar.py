"""Lark rules of values: what all dialects build their grammars from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from minicpm_core.dialects.reading import expand_parameters
from minicpm_core.schema_bounds import can_compile, lark_json, share
from minicpm_core.schema_expansion import MAX_COUNT
from minicpm_core.schema_joining import Schema
from minicpm_core.tools import Tool


class Rules:
    """Lark rules under construction; equal rules are written once."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], str] = {}
        self.lines: list[str] = []

    def add(self, body: str, attributes: str = "") -> str:
        """Return the name of a rule with this body."""
        return self._name("call_part_", body, attributes)

    def token(self, body: str) -> str:
        """Return the name of a token with this body, for which `&` and `~` are allowed."""
        return self._name("CALL_TOKEN_", body, "")

    def _name(self, prefix: str, body: str, attributes: str) -> str:
        name = self.names.setdefault((prefix + attributes, body), f"{prefix}{len(self.names)}")
        if len(self.lines) < len(self.names):
            self.lines.append(f"{name}{attributes}: {body}")
        return name

    def text(self, calls: str) -> str:
        """Return the grammar, whose rule `calls` has this body."""
        return "\n".join([f"calls: {calls}", *self.lines])


@dataclass(frozen=True)
class Style:
    """How values are written.

    Args:
        dump: returns the text of a value.
        signs: characters that stand for themselves in strings, as a regular expression's class.
        without: text that no string may hold.
    """

    dump: Callable[[Any], str]
    signs: str = r'[^"\\\x00-\x1f]'
    without: str = ""


def quote(text: str) -> str:
    """Return the Lark literal of a text."""
    return json.dumps(text, ensure_ascii=False)


def regex(pattern: str) -> str:
    """Return the Lark literal of a regular expression."""
    signs = {"/": r"\/", "\n": r"\n", "\r": r"\r"}
    return (
        "/"
        + re.sub(
            r"(\\.)|([/\n\r])",
            lambda m: m[1] if m[1] and m[1][1] not in signs else signs[(m[2] or m[1][1])],
            pattern,
            flags=re.DOTALL,
        )
        + "/"
    )


def arguments(tool: Tool, room: int) -> Schema:
    """Return the bounded tree of a tool's arguments; a required string is not empty."""
    tree = expand_parameters(tool)
    for name in tree["required"]:
        node = tree["properties"].get(name, {})
        if node.get("type") == "string" and not {"minLength", "pattern", "format"} & node.keys():
            tree["properties"] = {**tree["properties"], name: {**node, "minLength": min(1, node.get("maxLength", 1))}}
    return share(tree, room)


def value(rules: Rules, node: Schema, style: Style) -> str:
    """Return the rule of the values that follow a bounded tree, in a style that is JSON or nearly."""
    if "enum" in node:
        return rules.add(" | ".join(quote(style.dump(one)) for one in node["enum"]))
    if "anyOf" in node:
        return rules.add(" | ".join(value(rules, part, style) for part in node["anyOf"]))
    kind = node["type"]
    if kind == "string":
        return string(rules, node, style)
    if kind == "array":
        return rules.add(f'"[" {_items(rules, node, style)} "]"')
    if kind == "object":
        entries = [
            (f"{quote(style.dump(name) + ': ')} {value(rules, part, style)}", name in node["required"])
            for name, part in node["properties"].items()
        ]
        extra = ""
        if node.get("extra"):
            extra = f'{string(rules, node["key"], style)} ": " {value(rules, node["additional"], style)}'
        least = max(0, node.get("minProperties", 0) - len(entries))
        return rules.add(f'"{{" {sequence(rules, entries, extra, least, node.get("extra", 0), ", ")} "}}"')
    if kind in ("boolean", "null"):
        words = (True, False) if kind == "boolean" else (None,)
        return rules.add(" | ".join(quote(style.dump(word)) for word in words))
    return rules.add(lark_json(node))


def string(rules: Rules, node: Schema, style: Style) -> str:
    """Return the token of the strings that follow a bounded tree."""
    least, most = node["minLength"], node["maxLength"]
    guard = f" & ~/(?s:.*){re.escape(style.without)}(?s:.*)/" if style.without else ""
    pattern = node.get("pattern")
    if pattern and fits(pattern, style.signs, least, most):
        inner = rules.token(f"{regex(full(pattern))} & /{style.signs}{{{least},{most}}}/{guard}")
        return rules.token(f'"\\"" {inner} "\\""')
    signs = rf'({style.signs}|\\["\\bfnrt]|\\u00(0[0-9a-f]|1[0-9a-f]|3c|26|3e))'
    return rules.token(f'/"{signs}{{{least},{most}}}"/{guard}')


def text_token(rules: Rules, node: Schema, signs: str, strict: bool = False) -> str:
    """Return the token of raw text of these characters; with `strict` "" where none of them follows the pattern."""
    least, most = node["minLength"], node["maxLength"]
    pattern = node.get("pattern")
    if pattern and fits(pattern, signs, least, most):
        return rules.token(f"{regex(full(pattern))} & /{signs}{{{least},{most}}}/")
    return "" if most < least or (pattern and strict) else rules.token(f"/{signs}{{{least},{most}}}/")


def _items(rules: Rules, node: Schema, style: Style, index: int = 0) -> str:
    prefix, least, most = node["prefixItems"], node["minItems"], node["maxItems"]
    lead = '", " ' if index else ""
    if index >= most:
        return ""
    if index < len(prefix):
        body = f"{lead}{value(rules, prefix[index], style)} {_items(rules, node, style, index + 1)}"
        return body if index < least else f"({body})?"
    if "items" not in node:
        return ""
    return repeat(rules.add(value(rules, node["items"], style)), max(0, least - index), most - index, ", ", lead)


def repeat(item: str, least: int, most: int, separator: str, lead: str = "") -> str:
    """Return the expression of `least` to `most` items; `lead` stands before the first."""
    if most < 1:
        return ""
    more = f" ({quote(separator)} {item}){{{max(0, least - 1)},{most - 1}}}" if most > 1 else ""
    return f"{lead}{item}{more}" if least else f"({lead}{item}{more})?"


def sequence(
    rules: Rules, entries: Sequence[tuple[str, bool]], extra: str, least: int, most: int, separator: str
) -> str:
    """Return the expression of entries in order, each required or not, and of extra ones after them."""
    before = f"{quote(separator)} " if separator else ""
    item = rules.add(extra) if extra and most else ""
    tail = f"({before}{item}){{{least},{most}}}" if item else ""
    head = repeat(item, least, most, separator) if item else ""
    for entry, required in reversed(entries):
        rule = rules.add(entry)
        following = rules.add(tail) if tail else ""
        head = (
            f"{rule} {following}"
            if required
            else f"({rule} {following} | {head})"
            if head
            else f"({rule} {following})?"
        )
        tail = f"{before}{rule} {following}" if required else f"({before}{rule})? {following}"
    return head if separator else tail


def full(pattern: str) -> str:
    """Return a schema's pattern, which matches anywhere, as one that matches the whole string."""
    branches, depth, start, at = [], 0, 0, 0
    while at < len(pattern):
        sign = pattern[at]
        if sign == "\\":
            at += 1
        elif sign == "[":
            at = _class_end(pattern, at)
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "|" and not depth:
            branches.append(pattern[start:at])
            start = at + 1
        at += 1
    return "|".join(map(_anchored, [*branches, pattern[start:]]))


def _class_end(pattern: str, at: int) -> int:
    at += 2 if pattern[at + 1 : at + 2] == "^" else 1
    at += pattern[at : at + 1] == "]"
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at


def _anchored(branch: str) -> str:
    start = "" if branch.startswith("^") else "(?s:.*)"
    ends = re.search(r"(?<!\\)(\\\\)*\$$", branch)
    body = branch.removeprefix("^")
    return f"{start}({body[:-1]})" if ends else f"{start}({body})(?s:.*)"


@lru_cache(maxsize=4096)
def fits(pattern: str, signs: str, least: int, most: int) -> bool:
    """Return whether some string of these characters follows a pattern, and llguidance can write it as a token."""
    from llguidance import LLMatcher

    both = {"allOf": [{"pattern": pattern}, {"pattern": f"^{signs}{{{least},{min(most, MAX_COUNT)}}}$"}]}
    grammar = f"start: TOKEN\nTOKEN: {regex(full(pattern))} & /{signs}{{{least},{most}}}/"
    error = LLMatcher.validate_grammar
    return (
        can_compile(pattern, 0, MAX_COUNT)
        and not error("start: " + lark_json({"type": "string", **both}))
        and not error(grammar)
    )
