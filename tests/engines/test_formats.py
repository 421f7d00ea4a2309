"""Formats of strings, in patterns of ours."""

import re
from datetime import date

import pytest

from app.engines.formats import PATTERNS
from app.inference.patterns import complaint_about

HELD = {
    "date": ["0001-01-01", "2023-02-28", "2024-02-29", "2000-02-29", "0400-02-29", "1999-12-31", "9999-11-30"],
    "time": ["00:00:00Z", "23:59:59.123456789+23:59", "09:30:00-00:30"],
    "date-time": ["2024-02-29T23:59:59Z", "1985-04-12T23:20:50.52+01:00"],
    "ipv4": ["0.0.0.0", "255.255.255.255", "192.0.2.1", "10.99.100.249"],
}
NOT_HELD = {
    "date": [
        "0000-01-01",
        "2023-02-29",
        "1900-02-29",
        "2024-02-30",
        "2024-09-31",
        "2024-13-01",
        "2024-1-01",
        "24-01-01",
    ],
    "time": ["24:00:00Z", "12:60:00Z", "06:59:60+16:51", "12:00:00", "12:00:00+24:00", "12:00Z"],
    "date-time": ["2024-09-31T00:00:00Z", "2024-09-30 00:00:00Z", "2024-09-30T00:00:60Z"],
    "ipv4": ["036.48.233.6", "256.0.0.1", "1.2.3", "1.2.3.4.5", "00.0.0.0"],
}


def test_every_day_there_is_fits_and_no_other() -> None:
    pattern = re.compile(PATTERNS["date"])
    days = [f"{y:04}-{m:02}-{d:02}" for y in (1, 4, 1900, 2000, 2023, 2024) for m in range(14) for d in range(33)]
    for day in days:
        try:
            is_day = bool(date.fromisoformat(day))
        except ValueError:
            is_day = False
        assert bool(pattern.search(day)) == is_day, day


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_says_what_its_format_is(name: str) -> None:
    pattern = PATTERNS[name]
    assert complaint_about(pattern) is None
    assert [text for text in HELD[name] if not re.search(pattern, text)] == []
    assert [text for text in NOT_HELD[name] if re.search(pattern, text)] == []
