"""Made-up values fit their schemas."""

from typing import Any

import jsonschema
import pytest

from app.engines.formats import PATTERNS
from app.engines.simulated_schema import instance_of
from app.inference.patterns import of_length

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "next", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string", "minLength": 20},
        {"type": "string", "maxLength": 2},
        {"type": "string", "format": "date-time"},
        *({"type": "string", "pattern": pattern} for pattern in PATTERNS.values()),
        {"type": ["null", "string"]},
        {"type": "integer", "minimum": 7, "maximum": 9},
        {"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 4},
        {"type": "integer", "multipleOf": 5, "minimum": 11},
        {"type": "integer", "maximum": -3},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["a", "b"]},
        {"const": {"x": 1}},
        {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "items": {"type": "string"}, "maxItems": 0},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 2},
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b", "c"]},
        {"properties": {"a": {"type": "array", "items": {"type": "object", "properties": {"b": {"const": 2}}}}}},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"oneOf": [{"type": "object", "properties": {"kind": {"const": "x"}}, "required": ["kind"]}]},
        {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"required": ["b"]}]},
        {"definitions": {"n~/": {"type": "integer"}}, "properties": {"a": {"$ref": "#/definitions/n~0~1"}}},
        TREE,
    ],
    ids=str,
)
def test_an_instance_fits_its_schema(schema: Any) -> None:
    jsonschema.validate(instance_of(schema), schema, format_checker=jsonschema.FormatChecker())


def test_a_schema_that_is_only_itself_ends() -> None:
    instance_of({"$ref": "#"})
    instance_of({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})


@pytest.mark.parametrize(("least", "most"), [(0, 0), (0, 3), (3, 3), (12, 20), (9, None)])
def test_a_length_told_as_a_pattern_is_honoured(least: int, most: int | None) -> None:
    text = instance_of({"type": "string", "pattern": of_length(least, most)})
    assert least <= len(text) <= (most if most is not None else 100)
