"""What the benchmark of tool calls asks, and when an answer counts as valid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

Call = tuple[str, Any]
"""A tool's name and its arguments, None where they could not be read."""


@dataclass(frozen=True)
class Case:
    """Requests of one kind.

    Args:
        name: in the table.
        requests: what the user says.
        tools: OpenAI's tool dicts.
        choice: the tool choice.
        schema: JSON schema of the answer, instead of tools.
    """

    name: str
    requests: tuple[str, ...]
    tools: tuple[dict[str, Any], ...] = ()
    choice: Any = "any"
    schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether there was a call (or an answer that should follow a schema), and whether all of it is valid."""

    called: bool
    valid: bool


def judge(case: Case, calls: Sequence[Call], text: str) -> Verdict:
    """Judge an answer with nothing but the JSON schemas of the case."""
    if case.schema is not None:
        return Verdict(True, _follows(case.schema, text))
    known = {tool["function"]["name"]: tool["function"]["parameters"] for tool in case.tools}
    valid = [name in known and Draft202012Validator(known[name]).is_valid(arguments) for name, arguments in calls]
    return Verdict(bool(calls), bool(calls) and all(valid))


def _follows(schema: dict[str, Any], text: str) -> bool:
    try:
        return bool(Draft202012Validator(schema).is_valid(json.loads(text)))
    except ValueError:
        return False


def _tool(name: str, description: str, properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    parameters = _object(properties, *optional)
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_TEXT = {"type": "string"}
_ITEM = _object(
    {
        "product": _TEXT,
        "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
        "options": {"type": "array", "items": {"enum": ["gift wrap", "engraving", "none"]}, "maxItems": 2},
    },
    "options",
)
_DELIVERY = {
    "anyOf": [
        _object({"kind": {"const": "pickup"}, "shop": {"enum": ["north", "south"]}}),
        _object({"kind": {"const": "courier"}, "street": _TEXT, "city": _TEXT}),
    ]
}
CALCULATOR = _tool("calculator", "Evaluate an arithmetic expression.", {"expression": _TEXT})
SEARCH = _tool("search_documents", "Search the documents.", {"query": _TEXT})
READ_FILE = _tool("read_file", "Read a text file.", {"path": _TEXT})
ORDER = _tool(
    "create_order",
    "Create an order.",
    {
        "customer": _TEXT,
        "items": {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": 2},
        "delivery": _DELIVERY,
        "priority": {"enum": ["low", "normal", "high"]},
        "note": {"anyOf": [_TEXT, {"type": "null"}]},
    },
    "note",
)
INVOICE = {
    "title": "Invoice",
    "description": "An invoice.",
    **_object(
        {
            "number": _TEXT,
            "total": {"type": "number"},
            "currency": {"enum": ["EUR", "USD", "CNY"]},
            "paid": {"type": "boolean"},
            "lines": {"type": "array", "items": _object({"text": _TEXT, "amount": {"type": "number"}}), "maxItems": 3},
        }
    ),
}
_THREE = (CALCULATOR, SEARCH, READ_FILE)
CASES = (
    Case("one tool", ("What is 12 * 7?", "Calculate 90 / 4."), (CALCULATOR,)),
    Case("three tools", ("Search the documents for warranty.", "Read the file lease.txt."), _THREE),
    Case(
        "nested schema",
        (
            "Order 2 lamps for Clara Whitcombe, pickup in the north shop, priority high.",
            "Order 1 kettle for Tom Birch by courier to Harbour Street in Dover.",
        ),
        (ORDER,),
    ),
    Case("forced choice", ("Search the documents for roof.", "Hello!"), _THREE, "search_documents"),
    Case("auto choice", ("What is 15 + 27?", "Search the documents for rent."), _THREE, "auto"),
    Case("structured output", ("Invoice A-17 of 120.50 EUR is paid.", "Invoice 9 of 30 USD is open."), schema=INVOICE),
)
