"""Schemas, judged without an engine: what it holds to the letter passes, all else is refused with the reason."""

from typing import Any

import pytest

from app.errors import BadRequest
from app.inference.schema_rules import MAX_COUNTED_PROPERTIES, MAX_ENUM, MAX_PROPERTIES
from app.inference.schemas import MAX_DEPTH, MAX_NODES, MAX_TEXT_CHARS, check_schema
from tests.inference.schema_tables import HELD, INTEGER, REFUSED, UNHELD, closed, string


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"items": inner}
    return inner


def loop(*names: str) -> dict[str, Any]:
    """a -> b -> … -> a"""
    after = [*names[1:], names[0]]
    definitions = {name: {"$ref": f"#/$defs/{n}"} for name, n in zip(names, after, strict=True)}
    return {"$defs": definitions, "$ref": f"#/$defs/{names[0]}"}


def objects(n: int, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {str(i): {} for i in range(n)}, **more}


LARGE: dict[str, Any] = {
    "a string": "object",
    "a list": [],
    "too deep": nested(MAX_DEPTH + 1),
    "too many nodes": {"anyOf": [{} for _ in range(MAX_NODES)]},
    "too much text": {"const": "x" * MAX_TEXT_CHARS},
    "too long an enum": {"enum": list(range(MAX_ENUM + 1))},
    "too many properties": objects(MAX_PROPERTIES + 1),
    "too many counted properties": objects(MAX_COUNTED_PROPERTIES + 1, minProperties=1),
    "too many repetitions": string(pattern="^((a{1,100}){1,100}){1,100}$"),
    "too many patterns": closed(**{f"p{n}": string(pattern=f"^[a-z]{{1,100}}{n}$") for n in range(50)}),
    "too many lengths": closed(**{f"p{n}": string(maxLength=100, minLength=n) for n in range(50)}),
    "too many ranges": closed(**{f"p{n}": {"type": "number", "minimum": n} for n in range(1100)}),
    "too many definitions": {
        "$defs": {str(n): {} for n in range(300)},
        "anyOf": [{"$ref": f"#/$defs/{n}"} for n in range(300)],
    },
    "a reference to itself": {"$ref": "#"},
    "a loop of one": loop("a"),
    "a loop of three": loop("a", "b", "c"),
}


@pytest.mark.parametrize("schema", HELD.values(), ids=HELD.keys())
def test_a_schema_that_is_held_passes(schema: Any) -> None:
    check_schema(schema, "here")


@pytest.mark.parametrize("schema", [None, {}, nested(MAX_DEPTH), {"enum": list(range(MAX_ENUM))}, objects(100)])
def test_a_schema_as_large_as_allowed_passes(schema: Any) -> None:
    check_schema(schema, "here")


@pytest.mark.parametrize("schema", LARGE.values(), ids=LARGE.keys())
def test_a_schema_that_could_hold_an_engine_up_is_refused(schema: Any) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_schema(schema, "here", is_held=False)
    assert refusal.value.param == "here"
    assert len(refusal.value.message) < 500


@pytest.mark.parametrize(("schema", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_schema_that_an_engine_cannot_take_is_refused(schema: Any, reason: str) -> None:
    for is_held in (True, False):
        with pytest.raises(BadRequest) as refusal:
            check_schema(schema, "here", is_held=is_held)
        assert reason in refusal.value.message
        assert refusal.value.param == "here"


@pytest.mark.parametrize(("schema", "reason"), UNHELD.values(), ids=UNHELD.keys())
def test_what_a_grammar_does_not_say_is_refused_where_it_shall_be_held(schema: Any, reason: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_schema(schema, "here")
    assert reason in refusal.value.message
    check_schema(schema, "here", is_held=False)


def test_the_place_is_named() -> None:
    schema = closed(a={"type": "array", "items": closed(b={"type": "strnig"})})
    with pytest.raises(BadRequest, match=r"^here at /properties/a/items/properties/b: type must be one of"):
        check_schema(schema, "here")


def test_a_property_may_be_named_like_a_keyword_and_a_value_may_look_like_a_schema() -> None:
    check_schema(closed(**{"not": INTEGER, "$ref": INTEGER, "type": INTEGER, "enum": INTEGER}), "here")
    check_schema({"const": {"$ref": "http://127.0.0.1/x", "not": {}}}, "here")


def test_a_name_with_slashes_hides_nothing() -> None:
    hidden = {"type": "object", "properties": {"a": closed(b={"not": {}}), "a/properties/b": INTEGER}}
    with pytest.raises(BadRequest, match="not cannot be enforced"):
        check_schema(hidden, "here")
