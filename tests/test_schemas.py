"""Schemas: read from classes, made finite, and checked."""

from __future__ import annotations

import json
import typing
from typing import Any

import pydantic
import pytest
import typing_extensions
from llguidance import LLMatcher

from minicpm_core.schema_bounds import FORMATS
from minicpm_core.schemas import bound, find_error, lark_json, read_schema
from tests.toy_grammars import accepted, demo_tokens, walk


class Pair(pydantic.BaseModel):
    """Two values."""

    name: str
    count: int = 3


class Movie(typing.TypedDict):
    title: typing_extensions.Annotated[str, "the title"]
    year: typing_extensions.NotRequired[int]


class Loose(typing_extensions.TypedDict, total=False):
    title: str


class Odd(typing.TypedDict):
    value: object


def test_schemas_of_dicts_and_classes():
    given = {"type": "object"}
    assert read_schema(given) is given
    assert read_schema(Pair)["properties"]["count"] == {"default": 3, "title": "Count", "type": "integer"}
    assert read_schema(Movie)["required"] == ["title"]
    assert list(read_schema(Movie)["properties"]) == ["title", "year"]
    assert "required" not in read_schema(Loose)
    for other in (Pair(name="a"), "{}", 5, int, None):
        with pytest.raises(TypeError, match="a schema is a JSON schema dict, a pydantic class or a TypedDict"):
            read_schema(other)


def test_classes_of_pydantic_1():
    v1 = pytest.importorskip("pydantic.v1")
    model = v1.create_model("Old", pair=(tuple[int, str], ...), flag=(bool, True))
    schema = read_schema(model)
    assert schema["required"] == ["pair"]
    room = bound(schema, 200)
    assert takes(room, '{"pair": [1, "a"], "flag": false}') == ""
    assert takes(room, '{"pair": [1, 2]}') != ""


def takes(schema: dict[str, Any], text: str) -> str:
    return accepted("start: " + lark_json(schema), text, demo_tokens())


NODE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "v": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "other": {"$ref": "#/$defs/node"},
            },
            "required": ["v"],
        }
    },
    "$ref": "#/$defs/node",
}
TAKEN: list[tuple[Any, list[str], list[str]]] = [
    ({}, ["1", '"a"', "null", "[1, [2]]", '{"a": {"b": 1}}'], ["[1,2]", "{'a': 1}", "1e5"]),
    (True, ["true"], ["tru"]),
    ({"type": "string"}, ['""', '"é\\n"'], ['"' + "a" * 200 + '"']),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"abc"'], ['"a"', '"abcd"']),
    ({"type": "string", "minLength": 150}, ['"' + "a" * 150 + '"'], ['"a"', '"' + "a" * 151 + '"']),
    ({"pattern": "^[0-9a-f]{160}$"}, ['"' + "0" * 160 + '"'], ['"0"']),
    ({"type": "string", "pattern": "(?=a)b"}, ['"zz"'], []),
    ({"type": "integer"}, ["5", "-999999999999999"], ["1000000000000000", "1.5"]),
    ({"type": "integer", "minimum": 10**15 + 1}, ["1000000000000001"], ["1", "2000000000000001"]),
    ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 4}, ["2", "3"], ["1", "4"]),
    ({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 2}, ["1", "2"], ["0"]),
    ({"type": "integer", "multipleOf": 7, "minimum": 1}, ["14"], ["8"]),
    ({"type": "integer", "multipleOf": 1000003}, ["1000003", "1"], []),
    ({"type": "number"}, ["1.5", "-0.000001", "12"], ["0.0000001", "1e5"]),
    ({"type": "number", "minimum": 1e-7, "maximum": 2e-7}, ["0.0000001"], ["1"]),
    ({"type": "number", "multipleOf": 0.01, "minimum": 0}, ["0.25"], ["0.255", "-1"]),
    ({"type": "number", "maximum": 1e300}, ["5"], []),
    ({"enum": ["a", 1, None, {"b": [1, 2]}]}, ['"a"', "1", "null", '{"b": [1, 2]}'], ["2"]),
    ({"enum": ["a", 1, None], "type": ["string", "null"]}, ['"a"', "null"], ["1"]),
    ({"const": "x"}, ['"x"'], ['"y"']),
    ({"type": ["integer", "null"]}, ["1", "null"], ['"a"']),
    ({"type": "array", "items": {"type": "integer"}}, ["[]", "[1, 2, 3]"], ["[1, 2, 3, 4]", "[1,2]"]),
    ({"type": "array", "items": {"type": "null"}, "minItems": 9}, ["[" + ", ".join(["null"] * 9) + "]"], ["[]"]),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, ["[1]", "[]"], ["[1, 1]"]),
    ({"type": "array", "items": [{"type": "integer"}, {"type": "null"}], "minItems": 2}, ["[1, null]"], ["[1]"]),
    ({"type": "object"}, ["{}", '{"a": 1}'], ['{"' + "a" * 90 + '": 1}']),
    ({"type": "object", "additionalProperties": {"type": "null"}}, ['{"a": null}'], ['{"a": 1}']),
    ({"additionalProperties": {"type": "null"}, "minProperties": 1}, ['{"a": null}'], ["{}"]),
    ({"patternProperties": {"^x[0-9]$": {"type": "null"}}}, ['{"x1": null}'], ['{"y": null}']),
    ({"propertyNames": {"enum": ["a", "b.c"]}}, ['{"b.c": 1}'], ['{"bxc": 1}']),
    ({"properties": {"a": {"type": "null"}}, "required": ["a", "b"]}, ['{"a": null, "b": [1]}'], ['{"a": null}']),
    ({"properties": {"a": False, "b": {"type": "null"}}}, ["{}", '{"b": null}'], ['{"a": 1}']),
    (
        {
            "allOf": [
                {"properties": {"a": {"type": "null"}}},
                {"properties": {"b": {"type": "null"}}, "required": ["b"]},
            ]
        },
        ['{"a": null, "b": null}', '{"b": null}'],
        ["{}"],
    ),
    (
        {
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        ['{"a": null}', '{"b": null}'],
        ["{}"],
    ),
    ({"oneOf": [{"type": "null"}, {"$ref": "#"}]}, ["null"], []),
    (
        NODE,
        ['{"v": 1}', '{"v": 1, "next": {"v": 2, "next": {"v": 3, "next": null}}, "kids": [{"v": 1, "kids": []}]}'],
        ['{"v": 1, "next": {"v": 2, "next": {"v": 3, "next": {"v": 4}}}}'],
    ),
    ({"definitions": {"a/b": {"type": "null"}}, "items": {"$ref": "#/definitions/a~1b"}}, ["[null]"], ["[1]"]),
    ({"type": "array", "uniqueItems": True, "items": {"type": "boolean"}, "not": {"const": []}}, ["[true, true]"], []),
]


@pytest.mark.parametrize(("schema", "taken", "refused"), TAKEN)
def test_bounded_schemas_take_their_values_and_no_others(schema: Any, taken: list[str], refused: list[str]):
    finite = bound(schema, 100)
    assert "$ref" not in json.dumps(finite)
    assert [takes(finite, text) for text in taken] == [""] * len(taken)
    assert [text for text in refused if takes(finite, text) == ""] == []
    assert len(TAKEN) == 38


def test_room_is_shared():
    text = {"type": "string"}
    lengths = [
        bound({"properties": {"a": text, "b": text, "c": {"type": "boolean"}}}, room)["properties"]["a"]["maxLength"]
        for room in (100, 1000, 10_000)
    ]
    assert lengths == [32, 384, 4096]
    finite = bound({"type": "array", "items": text}, 1000)
    assert (finite["maxItems"], finite["items"]["maxLength"]) == (11, 192)
    assert bound({"type": "array", "items": text, "maxItems": 2}, 1000)["maxItems"] == 2
    assert bound({"type": "array", "items": text}, 10**6)["maxItems"] == 64


def test_every_format_is_a_bounded_pattern():
    examples = {
        "date": "2024-12-31",
        "time": "23:59:59Z",
        "date-time": "2024-02-28T00:00:00.5+01:00",
        "duration": "P3DT4H",
        "email": "a.b@example.org",
        "hostname": "example.org",
        "ipv4": "192.168.0.255",
        "ipv6": "0:0:0:0:0:0:0:1",
        "uuid": "123e4567-e89b-42d3-a456-426614174000",
        "uri": "https://example.org:80/a/b.html",
    }
    assert set(examples) == set(FORMATS)
    for name, example in examples.items():
        finite = bound({"type": "string", "format": name}, 100)
        assert takes(finite, json.dumps(example)) == "", name
        assert takes(finite, '"x y"') != "", name
    assert takes(bound({"type": "string", "format": "date"}, 20), '"2023-02-29"') != ""


BAD: list[tuple[Any, str]] = [
    ({"type": "string", "minLength": 3, "maxLength": 2}, "#: minLength 3 is above 2"),
    ({"type": "array", "minItems": 10**9}, "#: minItems 1000000000 is above 100000"),
    ({"enum": []}, "#: no value of the enum is allowed"),
    ({"enum": [1, 2], "minimum": 3}, "#: no value of the enum is allowed"),
    (False, "#: false allows no value"),
    ({"properties": {"a": {"items": False, "minItems": 1}}, "required": ["a"]}, "#/properties/a/items: false"),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, "#: no value is both"),
    ({"minimum": 3, "maximum": 2}, "#: no number follows"),
    ({"type": "integer", "minimum": 1, "maximum": 6, "multipleOf": 7}, "#: no number follows"),
    ({"multipleOf": 0}, "#: multipleOf is 0; accepted: above 0"),
    ({"minimum": "a"}, "#: minimum is 'a'; accepted: a number"),
    ({"type": "text"}, "#: type is 'text'; accepted: string, number, boolean, null, array, object, integer"),
    ({"anyOf": {}}, "#: anyOf is {}; accepted: a list"),
    ({"items": 5}, "#/items: a schema is an object, true or false; given 5"),
    ({"properties": 5}, "#: properties is an object"),
    ({"$ref": "#"}, "calls for itself without an end"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "calls for itself without an end"),
    ({"items": {"$ref": "https://example.org/x"}}, "#/items: $ref 'https://example.org/x' leads nowhere"),
    ({"$ref": "#/$defs/none"}, "#: $ref '#/$defs/none' leads nowhere"),
    ({"properties": {str(n): {} for n in range(3000)}}, "more than 2000 parts"),
    ({"type": {}}, "#: type is {}"),
]


@pytest.mark.parametrize(("schema", "message"), BAD)
def test_schemas_that_nothing_finite_follows_are_refused_with_their_path(schema: Any, message: str):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        bound(schema, 100)
    assert message in str(error.value)
    assert len(BAD) == 21


def test_large_and_hostile_schemas_end():
    explosion: dict[str, Any] = {"$defs": {}, "$ref": "#/$defs/d0"}
    for n in range(30):
        parts = {f"p{i}": {"$ref": f"#/$defs/d{n + 1}"} for i in range(4)}
        explosion["$defs"][f"d{n}"] = {"type": "object", "properties": parts}
    explosion["$defs"]["d30"] = {"type": "null"}
    with pytest.raises(ValueError, match="more than 2000 parts"):
        bound(explosion, 100)
    deep: Any = {"type": "null"}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(ValueError, match=r"too deeply|more than 2000 parts"):
        bound(deep, 100)
    wide = {"$defs": {"n": {"properties": {f"p{i}": {"$ref": "#/$defs/n"} for i in range(12)}}}, "$ref": "#/$defs/n"}
    assert len(bound(wide, 100)["properties"]) == 12, "less depth where three levels are too many"


def test_a_walk_through_every_schema_ends_with_a_value():
    ends = 0
    for number, (schema, _, _) in enumerate(TAKEN):
        grammar = "start: " + lark_json(bound(schema, 60))
        assert LLMatcher.validate_grammar(grammar, demo_tokens().guidance) == ""
        text, ended = walk(grammar, demo_tokens(), number, 2.0, 3000)
        json.loads(text)
        ends += ended
    assert ends == len(TAKEN) == 38


ERRORS: list[tuple[Any, Any, str | None]] = [
    ({"type": "integer"}, 1, None),
    ({"properties": {"a": {"items": {"type": "integer"}}}}, {"a": [1, "x"]}, "a[1]: 'x' is not of type 'integer'"),
    ({"required": ["a"]}, {}, "'a' is a required property"),
    ({"uniqueItems": True}, [1, 1], "[1, 1] has non-unique elements"),
    ({"not": {"const": 1}}, 1, "1 should not be valid under {'const': 1}"),
    ({"multipleOf": 0.1}, 0.3, None),
    ({"multipleOf": 0.1}, 0.35, "0.35 is not a multiple of 0.1"),
    ({"pattern": "\\p{L}"}, "a", None),
    ({"pattern": "^b"}, "a", "'a' does not match '^b'"),
    ({"minimum": 1, "exclusiveMinimum": True}, 1, "1 is less than or equal to the minimum of 1"),
    ({"items": [{"type": "integer"}]}, ["a"], "[0]: 'a' is not of type 'integer'"),
    ({"dependencies": {"a": ["b"]}}, {"a": 1}, "'b' is a dependency of 'a'"),
    ({"$ref": "https://example.org/x"}, 1, "the schema cannot be checked, https://example.org/x leads nowhere"),
    ({"type": "text"}, 1, "the schema cannot be checked: UnknownType"),
    ({"minimum": "a"}, 1, "the schema cannot be checked: TypeError"),
    (NODE, {"v": 1, "next": {"v": "a"}}, "next.v: 'a' is not of type 'integer'"),
]


@pytest.mark.parametrize(("schema", "value", "error"), ERRORS)
def test_errors_are_one_line_with_the_path(schema: Any, value: Any, error: str | None):
    found = find_error(schema, value)
    assert found == error or (found or "").startswith(error or "-")
    assert "\n" not in (found or "")
    assert len(ERRORS) == 16


def test_a_class_without_a_json_schema_is_refused():
    class Strange:
        pass

    broken: Any = typing_extensions.TypedDict("broken", {"value": Strange})
    with pytest.raises(TypeError, match="broken has fields without a JSON schema"):
        read_schema(broken)
