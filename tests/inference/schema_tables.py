"""JSON schemas in tables: those that an engine holds, those that it cannot take, those that it does not hold."""

from typing import Any

Schema = dict[str, Any]

INTEGER: Schema = {"type": "integer"}
STRING: Schema = {"type": "string"}


def string(**limits: Any) -> Schema:
    return {"type": "string", **limits}


def array(**limits: Any) -> Schema:
    return {"type": "array", **limits}


def open_object(**limits: Any) -> Schema:
    return {"type": "object", **limits}


def closed(**properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


CIRCLE, SQUARE = closed(kind={"const": "circle"}, r=INTEGER), closed(kind={"const": "square"}, w=INTEGER)
TREE = closed(value=string(maxLength=3), children=array(maxItems=2, items={"$ref": "#/$defs/tree"}))

HELD: dict[str, Schema] = {
    "types": {"type": ["integer", "null"], "minimum": 3},
    "a root that is no object": array(items=STRING, maxItems=3),
    "enum": {"enum": ["a", 1, None, {"a": [1]}]},
    "enum with its type": {"type": ["string", "null"], "enum": ["a", None]},
    "const": {"const": {"a": 1}},
    "anyOf": {"anyOf": [closed(a=INTEGER), {"type": "null"}]},
    "oneOf told apart by a const": {"oneOf": [CIRCLE, SQUARE]},
    "oneOf of definitions": {
        "$defs": {"c": CIRCLE, "s": SQUARE},
        "oneOf": [{"$ref": "#/$defs/c"}, {"$ref": "#/$defs/s"}],
        "discriminator": {"propertyName": "kind"},
    },
    "oneOf of types": {"oneOf": [string(maxLength=2), INTEGER, array(items=INTEGER, maxItems=2)]},
    "allOf of one": closed(a={"allOf": [{"$ref": "#/$defs/n"}], "default": 1}) | {"$defs": {"n": INTEGER}},
    "a reference with a description": closed(a={"$ref": "#/$defs/n", "description": "d"}) | {"$defs": {"n": INTEGER}},
    "a reference to a property": closed(a=INTEGER, b={"$ref": "#/properties/a"}),
    "a tree": {"$defs": {"tree": TREE}, "$ref": "#/$defs/tree"},
    "a linked list": closed(next={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
    "array bounds": array(items=INTEGER, minItems=1, maxItems=2),
    "prefixItems": array(prefixItems=[INTEGER, STRING], items=False, minItems=2),
    "prefixItems and more": array(prefixItems=[INTEGER], items=STRING, maxItems=3),
    "optional properties": open_object(properties={"a": INTEGER, "b": STRING}, required=["b"]),
    "additionalProperties": open_object(properties={"a": STRING}, required=["a"], additionalProperties=INTEGER),
    "patternProperties": open_object(patternProperties={"^S_[a-z]{1,3}$": STRING}, additionalProperties=False),
    "propertyNames": open_object(propertyNames=string(pattern="^[a-c]$"), additionalProperties={"type": "boolean"}),
    "counted properties": open_object(properties=dict.fromkeys("abcd", INTEGER), minProperties=2, maxProperties=3),
    "integer bounds": {"type": "integer", "minimum": -3, "exclusiveMaximum": 12},
    "number bounds": {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
    "lengths": closed(a=string(minLength=2, maxLength=5), b=string(maxLength=128), c=string(minLength=3)),
    "no length": string(maxLength=0),
    "formats": closed(d=string(format="date"), u=string(format="uuid"), i=string(format="ipv4")),
    "a pattern": string(pattern=r"^\d{4}-\d{2}$"),
    "a pattern anywhere": string(pattern="foo"),
    "a pattern of alternatives": string(pattern="^(foo|bar(baz)?)$|^no$"),
    "a pattern with sets": string(pattern=r"^[^@\s]+@[^@\s]+\.[a-z]{2,5}$"),
    "nullable": closed(a={"type": ["string", "null"], "maxLength": 4}),
    "words of no weight": {"type": "integer", "title": "t", "default": "x", "x-made-up": {}, "deprecated": True},
}

REFUSED: dict[str, tuple[Schema, str]] = {
    "an unknown type": ({"type": "strnig"}, "type must be one of"),
    "no type": ({"type": []}, "type must be one of"),
    "a null type": ({"type": None}, "type must be one of"),
    "properties as a list": (open_object(properties=[]), "properties must be an object of schemas"),
    "a property that is a word": (open_object(properties={"a": "string"}), "properties must be"),
    "required as a word": (open_object(required="a"), "required must be a list of names"),
    "required twice": (open_object(properties={"a": {}}, required=["a", "a"]), "required must be"),
    "an enum as a word": ({"enum": "a"}, "enum must be a list"),
    "an empty enum": ({"enum": []}, "enum must be a list of at least one"),
    "an empty anyOf": ({"anyOf": []}, "anyOf must be a list of at least one"),
    "a bound in words": ({"type": "integer", "minimum": "3"}, "minimum must be a number"),
    "a negative length": (string(minLength=-1), "minLength must be a whole number"),
    "a broken length": (array(items={}, minItems=1.5), "minItems must be a whole number"),
    "items as a list": (array(items=[INTEGER]), "items must be a schema"),
    "exclusiveMinimum as of old": ({"type": "number", "exclusiveMinimum": True}, "must be a number"),
    "a pattern that is a number": (string(pattern=5), "pattern must be a string"),
    "lengths the wrong way round": (string(minLength=5, maxLength=2), "minLength is greater than maxLength"),
    "items the wrong way round": (array(items={}, minItems=3, maxItems=1), "minItems is greater"),
    "properties the wrong way round": (open_object(properties={"a": {}}, minProperties=1, maxProperties=0), "greater"),
    "too few for what is required": (closed(a={}, b={}) | {"maxProperties": 1}, "maxProperties is less than"),
    "too few for the first": (array(prefixItems=[{}, {}], maxItems=1), "maxItems is less"),
    "items of no kind": (array(minItems=2), "minItems needs items"),
    "properties of no kind": (open_object(minProperties=2), "minProperties needs"),
    "an empty range": ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum is greater than maximum"),
    "nothing between": ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "minimum is greater"),
    "an integer's broken bound": ({"type": "integer", "minimum": 2.5}, "whole numbers"),
    "an integer beyond 64 bits": ({"type": "integer", "maximum": 10**20}, "64 bits"),
    "a schema that fits nothing": (open_object(properties={"a": False}), "false fits no value"),
    "a name's pattern that is none": (open_object(patternProperties={"([": {}}), "is not a regular expression"),
    "a remote reference": ({"$ref": "https://example.com/schema.json"}, "only local references"),
    "a file reference": ({"$ref": "file:///etc/passwd"}, "only local references"),
    "an anchor": ({"$defs": {"n": {"$anchor": "x"}}, "$ref": "#x"}, "only local references"),
    "a reference to nowhere": ({"$ref": "#/$defs/none"}, "leads nowhere"),
    "a reference into a list": (closed(a={"anyOf": [INTEGER]}, b={"$ref": "#/properties/a/anyOf/0"}), "leads nowhere"),
    "an escaped reference": ({"$defs": {"a/b": {}}, "$ref": "#/$defs/a~1b"}, "escaped name"),
    "a value without an end": (closed(a={"$ref": "#"}), "requires itself"),
    "a list without an end": (
        {"$defs": {"a": array(items={"$ref": "#/$defs/a"}, minItems=1)}, "$ref": "#/$defs/a"},
        "requires itself",
    ),
}

UNHELD: dict[str, tuple[Schema, str]] = {
    "not": ({"type": "string", "not": {"const": "a"}}, "not cannot be enforced"),
    "if": ({"type": "integer", "if": {"minimum": 3}, "then": {"maximum": 5}}, "if cannot be enforced"),
    "uniqueItems": (array(items=STRING, uniqueItems=True), "uniqueItems cannot"),
    "contains": (array(items={}, contains=INTEGER), "contains cannot"),
    "multipleOf": ({"type": "number", "multipleOf": 0.5}, "multipleOf cannot"),
    "dependentRequired": (open_object(properties={"a": {}}, dependentRequired={"a": ["b"]}), "dependentRequired"),
    "$dynamicRef": ({"$dynamicRef": "#x"}, "$dynamicRef cannot"),
    "allOf of two": ({"allOf": [INTEGER, {"type": "integer", "minimum": 3}]}, "merge them"),
    "allOf beside properties": (closed(a=INTEGER) | {"allOf": [STRING]}, "beside allOf"),
    "anyOf beside a type": (open_object(anyOf=[{"type": "object"}]), "type beside anyOf"),
    "a bound beside a reference": ({"$defs": {"n": INTEGER}, "$ref": "#/$defs/n", "minimum": 3}, "beside $ref"),
    "a bound beside an enum": ({"enum": [1, 5], "minimum": 3}, "minimum beside enum"),
    "an enum of another type": ({"type": "integer", "enum": ["a", 1]}, "type beside enum"),
    "a const beyond 64 bits": ({"const": 12345678901234567890}, "beyond 64 bits"),
    "an enum beyond 64 bits": ({"enum": ["a", -(2**63)]}, "beyond 64 bits"),
    "a const with one inside": ({"const": {"a": [2**63]}}, "beyond 64 bits"),
    "a const of another type": ({"type": "integer", "const": True}, "type beside const"),
    "oneOf of overlapping numbers": ({"oneOf": [INTEGER, {"type": "number"}]}, "oneOf cannot"),
    "oneOf of overlapping enums": ({"oneOf": [{"enum": ["a", "b"]}, {"enum": ["a"]}]}, "oneOf cannot"),
    "oneOf of alike objects": ({"oneOf": [closed(a=INTEGER), closed(b=INTEGER)]}, "oneOf cannot"),
    "oneOf with an optional const": (
        {"oneOf": [open_object(properties={"k": {"const": c}}) for c in "ab"]},
        "oneOf cannot",
    ),
    "required without a property": (open_object(properties={"a": {}}, required=["b"]), "not among the properties"),
    "required without a type": ({"required": ["a"]}, 'only beside "type": "object"'),
    "a bound without a type": ({"minimum": 3}, 'only beside "type": "number"'),
    "a length without a type": ({"maxLength": 3}, 'only beside "type": "string"'),
    "an unknown format": (string(format="iban"), "format 'iban' is not enforced"),
    "a format that writes quotes": (string(format="json-pointer"), "is not enforced"),
    "a format with a length": (string(format="date", maxLength=3), "not enforced together"),
    "a pattern with a length": (string(pattern="^a+$", maxLength=3), "not enforced together"),
    "a pattern with a format": (string(pattern="^2", format="date"), "not enforced together"),
    "a long length": (string(maxLength=500), "up to 128 characters only"),
    "a pattern that is none": (string(pattern="(["), "is not a regular expression"),
    "a pattern that looks ahead": (string(pattern="^(?!a)"), "has (?!"),
    "several patterns of names": (open_object(patternProperties={"^a": {}, "^b": {}}), "only with one pattern"),
    "patterns of names beside properties": (
        open_object(properties={"a": {}}, patternProperties={"^b": {}}),
        "without properties",
    ),
    "propertyNames beside properties": (open_object(properties={"a": {}}, propertyNames=STRING), "propertyNames is"),
    "more properties than are named": (
        open_object(properties={"a": {}}, additionalProperties=INTEGER, minProperties=2),
        "a name may come twice",
    ),
}
