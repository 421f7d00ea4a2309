"""Brackets that open are counted as they stand in the bytes."""

import orjson
import pytest

from app.nesting import count_openings


@pytest.mark.parametrize(
    ("raw", "openings"),
    [(b"", 0), (b'"text"', 0), (b'{"a":[1,{"b":[]}]}', 4), (b'{"a":"]}[{"}', 3), (b"[" * 1000, 1000)],
)
def test_each_bracket_that_opens_counts_wherever_it_stands(raw: bytes, openings: int) -> None:
    assert count_openings(raw) == openings


def test_json_is_nested_no_deeper_than_brackets_open_in_it() -> None:
    deep: object = "leaf"
    for level in range(50):
        deep = {"in": deep} if level % 2 else [deep]
    assert count_openings(orjson.dumps(deep)) == 50
