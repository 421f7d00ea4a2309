"""What an engine gets to see of a schema."""

import re
from typing import Any

import pytest

from app.engines.formats import PATTERNS
from app.engines.simulated_schema import instance_of
from app.inference.patterns import of_length
from app.inference.schema_for_engine import for_engine
from tests.inference.schema_tables import HELD, INTEGER, array, closed, string


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        (string(), string()),
        (string(minLength=2, maxLength=5), string(pattern=of_length(2, 5))),
        (string(minLength=2), string(pattern=of_length(2, None))),
        (string(minLength=0), string()),
        (string(maxLength=500), string()),
        (string(maxLength=5, pattern="^a"), string(pattern="^a")),
        (string(maxLength=5, format="uuid"), string(format="uuid")),
        (string(format="date"), string(pattern=PATTERNS["date"])),
        (string(pattern="(?!a)"), string()),
        (string(pattern="^a(b+)?$"), string(pattern="^a(b+|)$")),
        (string(format="iban", description="d"), string(description="d")),
        ({"type": ["string", "null"], "maxLength": 1}, {"type": ["string", "null"], "pattern": of_length(0, 1)}),
        ({"type": "integer", "format": "int32"}, {"type": "integer", "format": "int32"}),
        ({"const": {"type": "string", "maxLength": 5}}, {"const": {"type": "string", "maxLength": 5}}),
    ],
)
def test_a_string_is_told_so_that_its_text_is_json(schema: dict[str, Any], sent: dict[str, Any]) -> None:
    assert for_engine(schema) == sent
    for outer in (lambda s: closed(a=s), lambda s: array(items=s), lambda s: {"anyOf": [s, INTEGER]}):
        assert for_engine(outer(schema)) == outer(sent)


@pytest.mark.parametrize(
    "schema", [s for s in HELD.values() if not any(word in str(s) for word in ("Length", "format", ")?"))]
)
def test_all_else_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert for_engine(schema) == schema


@pytest.mark.parametrize("name", PATTERNS)
def test_a_simulated_engine_knows_a_format_by_its_pattern(name: str) -> None:
    asked = string(format=name)
    assert instance_of(for_engine(asked)) == instance_of(asked)
    assert re.search(PATTERNS[name], instance_of(asked))
