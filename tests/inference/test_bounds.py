"""Schemas and messages, judged without an engine."""

from typing import Any

import pytest

from app.errors import BadRequest
from app.inference.bounds import MAX_ENUM, MAX_SCHEMA_DEPTH, MAX_SCHEMA_NODES, check_messages, check_schema, check_tools


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"items": inner}
    return inner


def loop(*names: str) -> dict[str, Any]:
    """a -> b -> … -> a"""
    after = [*names[1:], names[0]]
    return {"$defs": {name: {"$ref": f"#/$defs/{n}"} for name, n in zip(names, after, strict=True)}}


GOOD: dict[str, Any] = {
    "nothing": None,
    "empty": {},
    "as deep as allowed": nested(MAX_SCHEMA_DEPTH),
    "an enum as long as allowed": {"enum": list(range(MAX_ENUM))},
    "a shared definition": {
        "$defs": {"n": {"type": "integer"}},
        "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}},
    },
    "an escaped reference": {"$defs": {"a/b~c": {}}, "$ref": "#/$defs/a~1b~0c"},
}
BAD: dict[str, Any] = {
    "a string": "object",
    "a list": [],
    "too deep": nested(MAX_SCHEMA_DEPTH + 1),
    "too many nodes": {"properties": {str(n): {} for n in range(MAX_SCHEMA_NODES)}},
    "too long an enum": {"enum": list(range(MAX_ENUM + 1))},
    "too long a pattern": {"pattern": "a" * 600},
    "a remote reference": {"$ref": "https://example.com/schema.json"},
    "a file reference": {"$ref": "file:///etc/passwd"},
    "a reference to nowhere": {"$ref": "#/$defs/none"},
    "a reference to itself": {"$ref": "#"},
    "a loop of one": loop("a"),
    "a loop of three": loop("a", "b", "c"),
}


@pytest.mark.parametrize("schema", GOOD.values(), ids=GOOD.keys())
def test_a_schema_within_bounds_passes(schema: Any) -> None:
    check_schema(schema, "here")


@pytest.mark.parametrize("schema", BAD.values(), ids=BAD.keys())
def test_a_schema_that_could_hold_an_engine_up_is_refused(schema: Any) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_schema(schema, "here")
    assert refusal.value.param == "here"
    assert len(refusal.value.message) < 500


def test_text_in_all_its_forms_passes() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]
    check_messages([{"role": "user", "content": c} for c in ("a", None, [], parts)])


def test_a_property_may_be_named_like_a_keyword() -> None:
    check_schema({"properties": {"enum": {"type": "string"}, "pattern": {"type": "string"}}}, "here")


def test_the_tool_that_is_wrong_is_named() -> None:
    good = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(BadRequest) as refusal:
        check_tools([good, {"type": "mcp", "server_url": "http://127.0.0.1"}])
    assert refusal.value.param == "tools[1]"
