"""Schemas of older drafts rewritten, and two schemas joined into one."""

from __future__ import annotations

import json
from typing import Any

Schema = dict[str, Any]
ONE = {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "additionalItems"}
SEVERAL = {"anyOf", "oneOf", "allOf", "prefixItems"}
NAMED = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}


class Impossible(ValueError):
    """No value follows this part of the schema."""


def modernize(schema: Any) -> Any:
    """Return a schema of any draft as one of 2020-12: tuple `items`, boolean exclusive bounds, `dependencies`."""
    if not isinstance(schema, dict):
        return schema
    new = {key: _rewritten(key, value) for key, value in schema.items()}
    if isinstance(new.get("items"), list):
        new["prefixItems"] = new.pop("items")
        if "additionalItems" in new:
            new["items"] = new.pop("additionalItems")
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(new.get(exclusive), bool) and new.pop(exclusive) and bound in new:
            new[exclusive] = new.pop(bound)
    for key, value in (new.pop("dependencies", None) or {}).items():
        new.setdefault("dependentRequired" if isinstance(value, list) else "dependentSchemas", {})[key] = value
    return new


def _rewritten(key: str, value: Any) -> Any:
    if isinstance(value, list) and (key in SEVERAL or key == "items"):
        return [modernize(part) for part in value]
    if isinstance(value, dict) and key in NAMED:
        return {name: modernize(part) for name, part in value.items()}
    return modernize(value) if key in ONE else value


def join(one: Any, two: Any, path: str) -> Schema:
    """Return the schema that says what both say, as far as a schema without `allOf` can."""
    if one is False or two is False:
        raise Impossible(f"{path}: false allows no value")
    one, two = ({} if part is True else part for part in (one, two))
    if not isinstance(one, dict) or not isinstance(two, dict):
        raise ValueError(f"{path}: a schema is an object, true or false")
    both: Schema = {**one, **two}
    for key in one.keys() & two.keys():
        left, right = one[key], two[key]
        if key == "type":
            kinds = [kind for kind in names_of(left) if kind in _wide(right)] or [
                kind for kind in names_of(right) if kind in _wide(left)
            ]
            if not kinds:
                raise Impossible(f"{path}: no value is both {left!r} and {right!r}")
            both[key] = kinds
        elif key in ("properties", "patternProperties", "$defs", "definitions"):
            shared = {name: {"allOf": [left[name], right[name]]} for name in left.keys() & right.keys()}
            both[key] = {**left, **right, **(shared if key in ("properties", "patternProperties") else {})}
        elif key == "required":
            both[key] = list(dict.fromkeys([*left, *right]))
        elif key == "enum":
            texts = {json.dumps(value) for value in right}
            both[key] = [value for value in left if json.dumps(value) in texts]
        elif key in ("anyOf", "oneOf"):
            both[key] = [{"allOf": [first, second]} for first in left for second in right]
        elif key in ("items", "additionalProperties"):
            both[key] = False if left is False or right is False else {"allOf": [left, right]}
        elif key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            both[key] = max(left, right)
        elif key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            both[key] = min(left, right)
    return both


def names_of(kind: Any) -> list[Any]:
    """Return the types of a `type` keyword."""
    return kind if isinstance(kind, list) else [kind]


def _wide(kind: Any) -> set[Any]:
    return {*names_of(kind), *(["integer"] if "number" in names_of(kind) else [])}
