"""LlamaIndex's metadata filters -> conditions of our index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilters

from minicpm_core.index.filters import normalise_where

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
}
_CONDITIONS = {FilterCondition.AND: "$and", FilterCondition.OR: "$or"}


def to_where(filters: MetadataFilters | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the condition that an index is searched with; None for none.

    Raises:
        ValueError: an operator, a condition or a value that an index does not know.
    """
    return normalise_where(_condition(filters) if isinstance(filters, MetadataFilters) else filters)


def _condition(filters: MetadataFilters) -> dict[str, Any]:
    condition = filters.condition or FilterCondition.AND
    if condition not in _CONDITIONS:
        accepted = ", ".join(known.value for known in _CONDITIONS)
        raise ValueError(f"the filters are joined by {condition.value!r}; accepted are {accepted}")
    parts: list[dict[str, Any]] = []
    for part in filters.filters:
        if isinstance(part, MetadataFilters):
            parts.append(_condition(part))
            continue
        if part.operator not in _OPERATORS:
            accepted = ", ".join(known.value for known in _OPERATORS)
            raise ValueError(
                f"the filter of {part.key!r} has the operator {part.operator.value!r}; accepted: {accepted}"
            )
        parts.append({part.key: {_OPERATORS[part.operator]: part.value}})
    return {_CONDITIONS[condition]: parts} if parts else {}
