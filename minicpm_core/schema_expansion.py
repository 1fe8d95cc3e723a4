"""A JSON schema as a plain tree: `$ref` followed, `allOf` joined, older drafts rewritten, recursion unrolled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from minicpm_core.schema_joining import Impossible, Schema, join, modernize, names_of
from minicpm_core.schema_numbers import NUMBER_KEYWORDS, read_integer, read_number

Trail = tuple[str, ...]

MAX_NODES = 2000
MAX_COUNT = 100_000
KEYWORDS = {
    "object": {"properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"},
    "string": {"pattern", "format", "minLength", "maxLength"},
    "number": NUMBER_KEYWORDS,
}
TYPES = ("string", "number", "boolean", "null", "array", "object")


class Endless(ValueError):
    """This part of the schema calls for itself again."""


class TooLarge(ValueError):
    """The schema has too many parts."""


def expand(schema: Any, depth: int = 3) -> Schema:
    """Return the schema as a tree of enum, anyOf and single types, recursion unrolled `depth` times (less when large).

    Raises:
        ValueError: no finite value can follow it, it has more than `MAX_NODES` parts, or it is no schema.
    """
    try:
        modern = modernize(schema)
        for level in range(depth, 0, -1):
            try:
                return _Expansion(modern, level).node(modern, "#", ())
            except TooLarge:
                continue
    except Endless as error:
        raise ValueError(f"the schema calls for itself without an end: {error}") from None
    except RecursionError:
        raise ValueError("the schema is nested too deeply") from None
    except TypeError as error:
        raise ValueError(f"this is no JSON schema: {error}") from None
    raise ValueError(f"the schema has more than {MAX_NODES} parts once its references are followed")


def any_value(depth: int = 2) -> Schema:
    """Return the tree of any JSON value, nested `depth` times."""
    branches: list[Schema] = [{"type": kind} for kind in TYPES[:4]]
    if depth:
        branches += [
            {"type": "array", "prefixItems": [], "items": any_value(depth - 1)},
            {"type": "object", "properties": {}, "required": [], "additional": any_value(depth - 1)},
        ]
    return {"anyOf": branches}


class _Expansion:
    def __init__(self, root: Any, depth: int) -> None:
        self.root = root
        self.depth = depth
        self.nodes = 0

    def node(self, schema: Any, path: str, trail: Trail) -> Schema:
        """Return the tree of one part; `trail` are the references followed on the way to it."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise TooLarge(path)
        if schema is False:
            raise Impossible(f"{path}: false allows no value")
        if schema is not True and not isinstance(schema, dict):
            raise ValueError(f"{path}: a schema is an object, true or false; given {schema!r:.80}")
        flat, trail = self.flatten({} if schema is True else schema, path, trail)
        if "enum" in flat:
            return {"enum": _allowed(flat, path)}
        for union in ("anyOf", "oneOf"):
            if union in flat:
                base = {key: value for key, value in flat.items() if key != union}
                return self.union([join(base, part, path) for part in _list(flat, union, path)], path, trail)
        types = _types(flat, path)
        if not types:
            return any_value()
        if len(types) > 1:
            return self.union([{**flat, "type": kind} for kind in types], path, trail)
        build: Callable[[Schema, str, Trail], Schema] = getattr(self, f"_{types[0]}")
        return build(flat, path, trail)

    def flatten(self, schema: Schema, path: str, trail: Trail) -> tuple[Schema, Trail]:
        """Return the schema joined with what its `$ref` and `allOf` say."""
        flat = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "const")}
        if "const" in schema:
            flat = join(flat, {"enum": [schema["const"]]}, path)
        parts = list(_list(schema, "allOf", path))
        if "$ref" in schema:
            ref = schema["$ref"]
            if trail.count(ref) >= self.depth:
                raise Endless(path)
            trail = (*trail, ref)
            parts.insert(0, self.resolve(ref, path))
        before: Schema = {}
        for part in parts:
            other = part
            if isinstance(part, dict):
                other, trail = self.flatten(part, path, trail)
            before = join(before, other, path)
        return join(before, flat, path), trail

    def resolve(self, ref: Any, path: str) -> Any:
        """Return the part of the root schema that a JSON pointer names (RFC 6901)."""
        target = self.root
        try:
            head, *keys = ref.split("/")
            if head != "#":
                raise KeyError(head)
            for key in keys:
                name = key.replace("~1", "/").replace("~0", "~")
                target = target[int(name)] if isinstance(target, list) else target[name]
        except (KeyError, IndexError, ValueError, TypeError, AttributeError):
            raise ValueError(
                f"{path}: $ref {ref!r} leads nowhere; accepted: pointers into the schema itself, such as #/$defs/name"
            ) from None
        return target

    def union(self, parts: list[Schema], path: str, trail: Trail) -> Schema:
        """Return the alternatives that can end; refuse when none can."""
        found: dict[str, Schema] = {}
        problem: ValueError = Impossible(f"{path}: no alternatives")
        for part in parts:
            try:
                node = self.node(part, path, trail)
            except (Impossible, Endless) as error:
                problem = error if not isinstance(problem, Endless) else problem
                continue
            for branch in node.get("anyOf", [node]):
                found.setdefault(json.dumps(branch), branch)
        if not found:
            raise problem
        return {"anyOf": list(found.values())} if len(found) > 1 else next(iter(found.values()))

    def _boolean(self, schema: Schema, path: str, trail: Trail) -> Schema:
        return {"type": "boolean"}

    def _null(self, schema: Schema, path: str, trail: Trail) -> Schema:
        return {"type": "null"}

    def _string(self, schema: Schema, path: str, trail: Trail) -> Schema:
        node: Schema = {"type": "string"} | _counts(schema, "minLength", "maxLength", path)
        return node | {key: schema[key] for key in ("pattern", "format") if isinstance(schema.get(key), str)}

    def _number(self, schema: Schema, path: str, trail: Trail) -> Schema:
        return read_number(schema, path)

    def _integer(self, schema: Schema, path: str, trail: Trail) -> Schema:
        return read_integer(schema, path)

    def _array(self, schema: Schema, path: str, trail: Trail) -> Schema:
        node: Schema = {"type": "array", "prefixItems": []} | _counts(schema, "minItems", "maxItems", path)
        least = node.get("minItems", 0)
        for index, part in enumerate(_list(schema, "prefixItems", path)):
            try:
                node["prefixItems"].append(self.node(part, f"{path}/prefixItems/{index}", trail))
            except (Impossible, Endless):
                if index < least:
                    raise
                return node | {"maxItems": min(index, node.get("maxItems", index))}
        try:
            node["items"] = self.node(schema.get("items", True), f"{path}/items", trail)
        except (Impossible, Endless):
            count = len(node["prefixItems"])
            if least > count:
                raise
            node["maxItems"] = min(count, node.get("maxItems", count))
        return node

    def _object(self, schema: Schema, path: str, trail: Trail) -> Schema:
        given, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(given, dict) or not isinstance(required, list):
            raise ValueError(f"{path}: properties is an object and required a list of names")
        node: Schema = {"type": "object", "properties": {}, "required": [name for name in required]}
        node |= _counts(schema, "minProperties", "maxProperties", path)
        patterns = schema.get("patternProperties") or {}
        extra = schema.get("additionalProperties", True)
        for name in [*given, *(name for name in dict.fromkeys(required) if name not in given)]:
            part = given.get(name, _matching(patterns, name, extra))
            try:
                node["properties"][name] = self.node(part, f"{path}/properties/{name}", trail)
            except (Impossible, Endless):
                if name in required:
                    raise
        names = schema.get("propertyNames")
        if patterns:
            node["keys"], extra = next(iter(patterns.items()))
        elif isinstance(names, dict) and isinstance(names.get("pattern"), str):
            node["keys"] = names["pattern"]
        elif isinstance(names, dict) and isinstance(names.get("enum"), list):
            node["keys"] = "^(" + "|".join(re.escape(str(name)) for name in names["enum"]) + ")$"
        if extra is not False and not (extra is True and node["properties"]):
            try:
                node["additional"] = self.node(extra, f"{path}/additionalProperties", trail)
            except (Impossible, Endless):
                if node.get("minProperties", 0) > len(node["properties"]):
                    raise
        return node


def _types(schema: Schema, path: str) -> list[str]:
    if "type" not in schema:
        return [kind for kind, keywords in KEYWORDS.items() if keywords & schema.keys()]
    for kind in (kinds := names_of(schema["type"])):
        if kind not in (*TYPES, "integer"):
            raise ValueError(f"{path}: type is {kind!r}; accepted: {', '.join((*TYPES, 'integer'))}")
    return list(dict.fromkeys(kinds))


def _list(schema: Schema, key: str, path: str) -> list[Any]:
    value = schema.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{path}: {key} is {value!r:.80}; accepted: a list")
    return value


def _counts(schema: Schema, least: str, most: str, path: str) -> dict[str, int]:
    counts = {}
    for key in (least, most):
        if key in schema:
            value = schema[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
                raise ValueError(f"{path}: {key} is {value!r:.80}; accepted: 0 or more")
            counts[key] = int(value)
    if counts.get(least, 0) > counts.get(most, MAX_COUNT):
        raise Impossible(f"{path}: {least} {counts[least]} is above {counts.get(most, MAX_COUNT)}")
    return counts


def _matching(patterns: Schema, name: str, extra: Any) -> Any:
    for pattern, part in patterns.items():
        try:
            if re.search(pattern, name):
                return part
        except re.error:
            continue
    return extra if isinstance(extra, dict) else True


def _allowed(schema: Schema, path: str) -> list[Any]:
    """Return the values of an enum that the other keywords allow."""
    from minicpm_core.schemas import find_error

    rest = {key: value for key, value in schema.items() if key not in ("enum", "title", "description", "default")}
    values = {json.dumps(value, allow_nan=False): value for value in _list(schema, "enum", path)}
    if found := [value for value in values.values() if not rest or find_error(rest, value) is None]:
        return found
    raise Impossible(f"{path}: no value of the enum is allowed")


def walk(node: Schema) -> Iterator[Schema]:
    """Yield the nodes of an expanded tree."""
    yield node
    parts = [*node.get("anyOf", []), *node.get("prefixItems", []), *node.get("properties", {}).values()]
    for part in [*parts, *(node[key] for key in ("items", "additional") if key in node)]:
        yield from walk(part)
