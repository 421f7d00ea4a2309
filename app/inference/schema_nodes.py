"""What a JSON schema is made of: the schemas inside of it, and the shape of each keyword's value."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Node = Mapping[str, Any]

MAX_INTEGER = 2**63 - 1
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


# Where schemas are inside of schemas; a property that is named like a keyword is none.

ONE = (
    *("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "propertyNames"),
    *("not", "if", "then", "else", "contains"),
)
SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def subschemas(schema: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Every schema object with its JSON pointer, the outer before the inner."""
    yield path, schema
    for where, child in children(schema, path):
        if isinstance(child, Mapping):
            yield from subschemas(child, where)


def children(schema: Node, path: str = "") -> Iterator[tuple[str, Any]]:
    for key in ONE:
        if key in schema:
            yield f"{path}/{key}", schema[key]
    for key in SEVERAL:
        branches = schema.get(key)
        yield from ((f"{path}/{key}/{i}", b) for i, b in enumerate(branches if isinstance(branches, list) else ()))
    for key in NAMED:
        named = schema.get(key)
        yield from ((f"{path}/{key}/{n}", s) for n, s in (named.items() if isinstance(named, Mapping) else ()))


# What a keyword's value must be.

Check = Callable[[Any], bool]


def _is_schema(value: Any) -> bool:
    return isinstance(value, Mapping | bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_types(value: Any) -> bool:
    listed = value if isinstance(value, list) else [value]
    return bool(listed) and all(isinstance(t, str) and t in TYPES for t in listed) and len(set(listed)) == len(listed)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(n, str) for n in value) and len(set(value)) == len(value)


def _are_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


def _are_named_schemas(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_schema, value.values()))


def _are_values(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


SHAPES: dict[str, tuple[Check, str]] = {
    "type": (_are_types, f"one of {', '.join(TYPES)}, or a list of some of them"),
    "enum": (_are_values, "a list of at least one value"),
    "required": (_are_names, "a list of names, each of them once"),
    **dict.fromkeys(ONE, (_is_schema, "a schema")),
    **dict.fromkeys(SEVERAL, (_are_schemas, "a list of at least one schema")),
    **dict.fromkeys(NAMED, (_are_named_schemas, "an object of schemas")),
    **dict.fromkeys(("pattern", "format", "$ref"), (_is_text, "a string")),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), (_is_number, "a number")),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        (_is_count, "a whole number of at least 0"),
    ),
}


def misshapen(node: Node) -> Iterator[str]:
    for key, (is_good, words) in SHAPES.items():
        if key in node and not is_good(node[key]):
            yield f"{key} must be {words}."
