"""An expanded schema with bounds on everything open, so that decoding ends, as llguidance takes it."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from functools import lru_cache
from typing import Any

from minicpm_core.schema_expansion import MAX_COUNT, walk
from minicpm_core.schema_joining import Schema
from minicpm_core.schema_numbers import MAX_INTEGER, has_multiple, number_range

JSON_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,
    "lenient": True,
}
"""llguidance's options: one line in the form of `json.dumps`, and what a grammar cannot say is left to `find_error`."""
LARGEST = 999_999_999_999_999
"""Most that an open number may be: 15 digits, which a double holds exactly."""
_STEPS = {count * Decimal(10) ** power for count in range(1, 201) for power in range(9)}
"""Millionths that a number may be a multiple of in a grammar; others are checked when the answer is there."""
USUAL_ITEMS = 4
"""Items that an array's room is shared among; more of them are seldom all as long as they may be, and then cut off."""
SHORTEST = 8
"""Characters that a string or key gets however small the room is."""
# 29 February is left out.
_DATE = r"[12][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_ZONE = r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
_URI = rf"(https?|ftp)://{_HOST}(:[1-9][0-9]{{0,3}})?(/[A-Za-z0-9._~!$&()*+,;=:@%-]{{0,60}}){{0,6}}"
FORMATS = {
    "date": _DATE,
    "time": _TIME + _ZONE,
    "date-time": f"{_DATE}T{_TIME}{_ZONE}",
    "duration": r"P([1-9][0-9]{0,3}W|[1-9][0-9]{0,3}D(T[1-9][0-9]{0,3}[HMS])?|T[1-9][0-9]{0,3}[HMS])",
    "email": rf"[A-Za-z0-9]([A-Za-z0-9._+-]{{0,30}}[A-Za-z0-9])?@{_LABEL}(\.{_LABEL}){{0,2}}\.[a-z]{{2,10}}",
    "hostname": _HOST,
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "ipv6": r"[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "uri": _URI,
}
"""Formats as bounded patterns; other formats are free text."""


def share(node: Schema, room: int) -> Schema:
    """Return an expanded tree with bounds on all strings, numbers, arrays and mappings, sharing `room` characters."""
    if "anyOf" in node:
        return {"anyOf": [share(part, room) for part in node["anyOf"]]}
    kind = node.get("type")
    if kind == "string":
        return _share_string(node, room)
    if kind in ("integer", "number"):
        return _share_number(node)
    if kind == "array":
        return _share_array(node, room)
    if kind == "object":
        return _share_object(node, room)
    return node


def _share_string(node: Schema, room: int) -> Schema:
    least = node.get("minLength", 0)
    most = min(node.get("maxLength", MAX_COUNT), max(_round(room - 2), least, SHORTEST))
    new: Schema = {"type": "string", "minLength": least, "maxLength": most}
    pattern = node.get("pattern")
    if pattern is None and node.get("format") in FORMATS:
        pattern = f"^({FORMATS[node['format']]})$"
    if pattern is None or not can_compile(pattern, 0, MAX_COUNT):
        return new
    own = node.get("maxLength", MAX_COUNT)
    for length in (most, 64, 256, 1024, MAX_COUNT):
        if can_compile(pattern, least, min(max(most, length), own)):
            return new | {"maxLength": min(max(most, length), own), "pattern": pattern}
    return new


def _share_number(node: Schema) -> Schema:
    least, most, step = number_range(node)
    if least is None:
        least = -LARGEST if most is None or most > -LARGEST else most - LARGEST
    if most is None:
        most = LARGEST if least < LARGEST else least + LARGEST
    limit = MAX_INTEGER if node["type"] == "integer" else LARGEST
    new = {key: node[key] for key in ("exclusiveMinimum", "exclusiveMaximum") if abs(node.get(key, limit)) < limit}
    new |= {"type": node["type"], "minimum": max(least, -limit), "maximum": min(most, limit)}
    if new["minimum"] > new["maximum"]:
        return {"enum": [least / 2 + most / 2]}
    if node["type"] == "integer":
        # The automaton of a step has a state per remainder: 1000003 takes seconds.
        return new | ({"multipleOf": step} if step != 1 and step and step <= 200 else {})
    if step and Decimal(str(step)).normalize() * 10**6 in _STEPS:
        return new | {"multipleOf": step}
    for digits in (6, 9, 12):
        if has_multiple(new, 10**-digits):
            return new | {"multipleOf": float(f"1e-{digits}")}
    return {"enum": [(least + most) / 2]}


def _share_array(node: Schema, room: int) -> Schema:
    prefix, least = node["prefixItems"], node.get("minItems", 0)
    most = min(node.get("maxItems", MAX_COUNT), max(_most(room), least, len(prefix)))
    if "items" not in node:
        most = min(most, len(prefix))
    each = (room - 2) // max(least, len(prefix), min(most, USUAL_ITEMS), 1)
    new = {**node, "minItems": least, "maxItems": most, "prefixItems": [share(part, each) for part in prefix[:most]]}
    if "items" in node:
        new["items"] = share(node["items"], each)
    return new


def _share_object(node: Schema, room: int) -> Schema:
    properties = node["properties"]
    fixed = 2 + sum(len(json.dumps(name)) + 4 + _fixed(part) for name, part in properties.items())
    open_parts = sum(_is_open(part) for part in properties.values()) + ("additional" in node)
    spare = max(0, room - fixed) // max(1, open_parts)
    new = {
        **node,
        "properties": {name: share(part, _fixed(part) + spare) for name, part in properties.items()},
    }
    if "additional" in node:
        extra = max(0, node.get("minProperties", 0) - len(properties))
        least = max(extra, min(_most(spare), node.get("maxProperties", MAX_COUNT) - len(properties)), 0)
        new["extra"] = least
        new["additional"] = share(node["additional"], spare // max(1, least) - SHORTEST)
        new["key"] = share({"type": "string", "minLength": 1, "maxLength": 4 * SHORTEST}, spare // max(1, 3 * least))
        if "keys" in node:
            new["key"] = share({"type": "string", "pattern": node["keys"]}, 4 * SHORTEST)
    return new


def _round(room: int) -> int:
    """Return the next lower 2, 3, 4, 6, 8, 12, 16 ...: few lengths, so that many tools share their rules."""
    power = 1 << max(1, room.bit_length() - 1)
    return power + power // 2 if room >= power + power // 2 else power


def _most(room: int) -> int:
    return max(1, min(64, math.isqrt(max(0, room) // 8)))


def _fixed(node: Schema) -> int:
    """Return the characters that a node takes before its open parts get any."""
    if "enum" in node:
        return max(len(json.dumps(value)) for value in node["enum"])
    if "anyOf" in node:
        return max(_fixed(part) for part in node["anyOf"])
    if node["type"] == "object":
        return 2 + sum(len(json.dumps(name)) + 4 + _fixed(part) for name, part in node["properties"].items())
    return {"boolean": 5, "null": 4, "integer": 16, "number": 20}.get(node["type"], 2)


def _is_open(node: Schema) -> bool:
    return any(part.get("type") in ("string", "array") or "additional" in part for part in walk(node))


def to_json_schema(node: Schema) -> Schema:
    """Return a tree as a JSON schema; a shared one is bounded as llguidance takes it."""
    if "anyOf" in node:
        return {"anyOf": [to_json_schema(part) for part in node["anyOf"]]}
    if node.get("type") == "array":
        items: Any = to_json_schema(node["items"]) if "items" in node else False
        new = {**node, "prefixItems": [to_json_schema(part) for part in node["prefixItems"]], "items": items}
        return new if new["prefixItems"] else {key: part for key, part in new.items() if key != "prefixItems"}
    if node.get("type") != "object":
        return node
    properties = {name: to_json_schema(part) for name, part in node["properties"].items()}
    new = {"type": "object", "properties": properties, "required": node["required"], "additionalProperties": False}
    if "additional" in node and "key" not in node:
        new["additionalProperties"] = to_json_schema(node["additional"])
    elif node.get("extra"):
        new["maxProperties"] = len(properties) + node["extra"]
        new["patternProperties"] = {key_pattern(node["key"]): to_json_schema(node["additional"])}
        if "minProperties" in node:
            new["minProperties"] = node["minProperties"]
    return new


def key_pattern(key: Schema) -> str:
    """Return the pattern of a mapping's keys."""
    if "pattern" in key:
        return str(key["pattern"])
    return f'^[^"\\\\\\x00-\\x1f\\x7f]{{{max(1, key["minLength"])},{key["maxLength"]}}}$'


def lark_json(schema: Schema) -> str:
    """Return the Lark expression of the JSON values that follow a schema (which `bound` has made finite)."""
    return "%json " + json.dumps({"x-guidance": JSON_OPTIONS, **schema})


@lru_cache(maxsize=4096)
def can_compile(pattern: str, least: int, most: int) -> bool:
    """Return whether llguidance can write strings of this pattern and length."""
    from llguidance import LLMatcher

    schema = {"type": "string", "pattern": pattern, "minLength": least}
    return not LLMatcher.validate_grammar(
        "start: " + lark_json(schema | ({"maxLength": most} if most < MAX_COUNT else {}))
    )
