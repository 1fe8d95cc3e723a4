"""Conditions on passages' metadata, in Chroma's words, for Chroma and for the catalog's SQL alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Where: TypeAlias = Mapping[str, Any]
"""`{"source": "lease.pdf"}`, `{"page": {"$gte": 2, "$lt": 9}}`, `{"$or": [..., ...]}`; several keys all hold."""

_ORDERED = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_LISTS = ("$in", "$nin")
_JOINED = {"$and": " AND ", "$or": " OR "}
_ACCEPTED = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, and around conditions $and, $or"


def normalise_where(where: Where | None) -> dict[str, Any] | None:
    """Return the condition as Chroma takes it: one key in a dict, one operator at a key; None for none.

    Raises:
        ValueError: an operator or a value that is not accepted.
    """
    if where is None or (isinstance(where, Mapping) and not where):
        return None
    if not isinstance(where, Mapping):
        raise ValueError(f"where is a {type(where).__name__}; accepted is a dict such as {{'source': 'lease.pdf'}}")
    conditions = [condition for key, value in where.items() for condition in _conditions(key, value)]
    return conditions[0] if len(conditions) == 1 else {"$and": conditions}


def _conditions(key: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(key, str) or '"' in key:
        raise ValueError(f"where has the key {key!r}; accepted are names of metadata such as 'source' and 'page'")
    if key in _JOINED:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise ValueError(f"where has {key}: {value!r}; accepted is a list of conditions")
        parts = [part for part in map(normalise_where, value) if part]
        return [{key: parts}] if len(parts) > 1 else parts
    if key.startswith("$"):
        raise ValueError(f"where has the operator {key!r} outside of a key; accepted are {_ACCEPTED}")
    tests = value if isinstance(value, Mapping) else {"$eq": value}
    return [{key: {operator: _check(key, operator, operand)}} for operator, operand in tests.items()]


def _check(key: str, operator: str, operand: Any) -> Any:
    if operator in _LISTS:
        if isinstance(operand, str) or not isinstance(operand, Sequence) or not operand:
            raise ValueError(f"where has {key!r}: {{{operator!r}: {operand!r}}}; accepted is a list that is not empty")
        values = [_value(key, item) for item in operand]
        if len({type(value) for value in values}) > 1:
            raise ValueError(f"where has {key!r}: {{{operator!r}: {operand!r}}}; accepted are values of one type")
        return values
    if operator not in (*_ORDERED, "$eq", "$ne"):
        raise ValueError(f"where has the operator {operator!r} at {key!r}; accepted are {_ACCEPTED}")
    value = _value(key, operand)
    if operator in _ORDERED and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"where has {key!r}: {{{operator!r}: {operand!r}}}; accepted is a whole number")
    return value


def _value(key: str, value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # Chroma tells 2.0 from 2
    if not isinstance(value, str | int):
        raise ValueError(f"where has {key!r}: {value!r}; accepted are texts, whole numbers, True and False")
    return value


def where_sql(where: Mapping[str, Any] | None) -> tuple[str, list[Any]]:
    """Return what `normalise_where` returned as an SQL expression over chunks.metadata, and its values."""
    if where is None:
        return "1", []
    ((key, value),) = where.items()
    if key in _JOINED:
        parts = [where_sql(part) for part in value]
        return "(" + _JOINED[key].join(sql for sql, _ in parts) + ")", [v for _, values in parts for v in values]
    ((operator, operand),) = value.items()
    path = f'$."{key}"'
    if operator in _ORDERED:
        number = "json_type(chunks.metadata, ?) = 'integer'"
        return f"({number} AND json_extract(chunks.metadata, ?) {_ORDERED[operator]} ?)", [path, path, operand]
    operands = operand if operator in _LISTS else [operand]
    equal = [_equals(path, item) for item in operands]
    sql = "(" + " OR ".join(sql for sql, _ in equal) + ")"
    values = [v for _, some in equal for v in some]
    # As in Chroma, a passage without the key is unequal to everything.
    return (f"NOT COALESCE({sql}, 0)" if operator in ("$ne", "$nin") else sql), values


def _equals(path: str, value: Any) -> tuple[str, list[Any]]:
    types = "'true', 'false'" if isinstance(value, bool) else "'text'" if isinstance(value, str) else "'integer'"
    sql = f"(json_type(chunks.metadata, ?) IN ({types}) AND json_extract(chunks.metadata, ?) = ?)"
    return sql, [path, path, value]
