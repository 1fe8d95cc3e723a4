"""The numbers of a JSON schema: their bounds and steps read, checked, and joined into a range."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from minicpm_core.schema_joining import Impossible, Schema

MAX_INTEGER = 2**63 - 1
NUMBER_KEYWORDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}


def read_number(schema: Schema, path: str) -> Schema:
    """Return the node of a number.

    Raises:
        ValueError: a bound or step is no number.
        Impossible: no number follows them.
    """
    node = _read_bounds("number", schema, path)
    _check_range(node, path)
    return node


def read_integer(schema: Schema, path: str) -> Schema:
    """Do the same for an integer, whose bounds become whole and inclusive."""
    given = _read_bounds("integer", schema, path)
    node: Schema = {"type": "integer"}
    least = [math.ceil(given["minimum"])] if "minimum" in given else []
    least += [math.floor(given["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in given else []
    most = [math.floor(given["maximum"])] if "maximum" in given else []
    most += [math.ceil(given["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in given else []
    node |= {"minimum": max(least)} if least else {}
    node |= {"maximum": min(most)} if most else {}
    node |= {"multipleOf": given["multipleOf"]} if "multipleOf" in given else {}
    _check_range(node, path)
    return node


def number_range(node: Schema) -> tuple[Any, Any, Any]:
    """Return the least and the most that a number may be, and its step; None where open."""
    least = [node[key] for key in ("minimum", "exclusiveMinimum") if key in node]
    most = [node[key] for key in ("maximum", "exclusiveMaximum") if key in node]
    return max(least, default=None), min(most, default=None), node.get("multipleOf")


def has_multiple(node: Schema, step: float) -> bool:
    """Return whether a closed range holds a multiple of a step."""
    least, most, _ = number_range(node)
    low, high, width = (Fraction(str(value)) for value in (least, most, step))
    multiple = math.ceil(low / width) * width
    if multiple == low and least == node.get("exclusiveMinimum"):
        multiple += width
    return multiple < high if most == node.get("exclusiveMaximum") else multiple <= high


def _read_bounds(kind: str, schema: Schema, path: str) -> Schema:
    node: Schema = {"type": kind}
    for key in sorted(NUMBER_KEYWORDS & schema.keys()):
        value = schema[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{path}: {key} is {value!r:.80}; accepted: a number")
        node[key] = value
    return node


def _check_range(node: Schema, path: str) -> None:
    least, most, step = number_range(node)
    if step is not None and step <= 0:
        raise ValueError(f"{path}: multipleOf is {step}; accepted: above 0")
    if least is not None and most is not None:
        is_open = least == node.get("exclusiveMinimum") or most == node.get("exclusiveMaximum")
        if least > most or (least == most and is_open) or (step and not has_multiple(node, step)):
            raise Impossible(f"{path}: no number follows {node}")
    if (least or 0) > MAX_INTEGER or (most or 0) < -MAX_INTEGER:
        raise Impossible(f"{path}: numbers beyond 64 bits are not written; asked for {node}")
