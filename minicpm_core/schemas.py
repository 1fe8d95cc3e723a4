"""Schemas of answers: read from classes, bounded so that decoding ends, and checked when the answer is there."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

from minicpm_core.schema_bounds import JSON_OPTIONS, lark_json, share, to_json_schema
from minicpm_core.schema_expansion import expand
from minicpm_core.schema_joining import Schema, modernize

__all__ = ["JSON_OPTIONS", "bound", "find_error", "lark_json", "make_check", "read_schema"]

_KEYWORDS = frozenset(
    "type enum const properties required additionalProperties patternProperties propertyNames minProperties "
    "maxProperties items prefixItems contains minItems maxItems uniqueItems minLength maxLength pattern format minimum "
    "maximum exclusiveMinimum exclusiveMaximum multipleOf anyOf oneOf allOf not if $ref $defs definitions $schema $id "
    "title description default examples nullable".split()
)


def read_schema(schema: Any) -> Schema:
    """Return the JSON schema of a dict, a pydantic class (2 or 1) or a TypedDict.

    Raises:
        TypeError: something else was given.
        ValueError: a dict without any keyword of JSON Schema, such as {"name": "str"}, which would allow everything.
    """
    if isinstance(schema, dict):
        if schema and not schema.keys() & _KEYWORDS:
            raise ValueError(
                f"the schema {schema!r:.200} has no keyword of JSON Schema; write it as "
                '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}'
            )
        return schema
    if inspect.isclass(schema):
        if hasattr(schema, "model_json_schema"):
            return dict(schema.model_json_schema())
        if hasattr(schema, "__fields__") and hasattr(schema, "schema"):
            return dict(schema.schema())
        if hasattr(schema, "__total__") and hasattr(schema, "__required_keys__"):
            return _typed_dict(schema)
    raise TypeError(f"a schema is a JSON schema dict, a pydantic class or a TypedDict; given {schema!r:.200}")


def _typed_dict(schema: Any) -> Schema:
    import typing

    import typing_extensions
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    hints = typing_extensions.get_type_hints(schema, include_extras=True)
    optional = schema.__optional_keys__
    not_required: Any = typing_extensions.NotRequired
    # Before Python 3.12 pydantic takes the TypedDict of typing_extensions only.
    fields = {
        name: typing_extensions.NotRequired[hint]
        if name in optional and typing.get_origin(hint) is not not_required
        else hint
        for name, hint in hints.items()
    }
    make: Any = typing_extensions.TypedDict
    copy = make(schema.__name__, fields)
    copy.__doc__ = schema.__doc__
    try:
        return TypeAdapter(copy).json_schema()
    except PydanticUserError as error:
        raise TypeError(f"{schema.__name__} has fields without a JSON schema: {error}") from None


def bound(schema: Any, room: int) -> Schema:
    """Return a schema that allows only finite values of about `room` characters, without references.

    Args:
        schema: a JSON schema of any draft; true or {} is any value.
        room: characters that the value's JSON may take, about.

    Raises:
        ValueError: nothing finite follows the schema, it is too large, or it is no schema; with the path.
    """
    return to_json_schema(share(expand(schema), room))


def find_error(schema: Any, value: Any) -> str | None:
    """Return in one line what is wrong with a value, with its path; None when it follows the schema."""
    return make_check(schema)(value)


def make_check(schema: Any) -> Callable[[Any], str | None]:
    """Return `find_error` for one schema."""
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    def check(value: Any) -> str | None:
        try:
            error = best_match(validator.iter_errors(value))
        except Unresolvable as problem:
            return f"the schema cannot be checked, {problem.ref} leads nowhere"
        except Exception as problem:  # a broken schema fails in as many ways as there are keywords
            return f"the schema cannot be checked: {type(problem).__name__}: {problem}"[:300].replace("\n", " ")
        if error is None:
            return None
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path).lstrip(".")
        message = " ".join(error.message.split())
        return f"{path}: {message[:300]}" if path else message[:300]

    try:
        validator = _validator()(modernize(schema), registry=_registry())
    except Exception as problem:
        reason = f"the schema cannot be checked: {type(problem).__name__}: {problem}"[:300]
        return lambda value: reason
    return check


@lru_cache(maxsize=1)
def _registry() -> Any:
    from referencing.jsonschema import EMPTY_REGISTRY

    return EMPTY_REGISTRY  # has no way to fetch: a reference to a network address is refused


@lru_cache(maxsize=1)
def _validator() -> Any:
    import jsonschema.validators
    from jsonschema.exceptions import ValidationError

    def check_step(validator: Any, step: Any, value: Any, schema: Any) -> Any:
        # 0.3 is a multiple of 0.1, though not in binary fractions.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and math.isfinite(value) and Decimal(str(value)) % Decimal(str(step)):
            yield ValidationError(f"{value!r} is not a multiple of {step}")

    def check_pattern(validator: Any, pattern: Any, value: Any, schema: Any) -> Any:
        try:
            found = not isinstance(value, str) or re.search(pattern, value)
        except re.error:
            return  # a pattern of another language, such as \p{L}
        if not found:
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    extend: Any = jsonschema.validators.extend
    return extend(jsonschema.Draft202012Validator, {"multipleOf": check_step, "pattern": check_pattern})
