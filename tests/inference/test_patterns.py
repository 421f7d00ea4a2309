"""Regular expressions, judged without an engine."""

import re

import pytest

from app.inference.patterns import (
    complaint_about,
    count_repeats,
    of_length,
    with_optional_groups_spelled_out,
)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "foo",
        "^foo$",
        "^foo$|^bar$",
        "^(foo|bar)$",
        "(^foo$)",
        r"^\d{4}-\d{2}$",
        "^a+?$",
        "^(?:ab)+$",
        "^(?P<x>a)$",
        "^[^a]{1,128}$",
        r"^[\"']$",
        r"^[^\"\\]+$",
        r"^\[\w+\]\{\}$",
        r"^\^\$$",
        "^[$^]$",
        "^.*$",
    ],
)
def test_a_pattern_that_is_held_passes(pattern: str) -> None:
    assert complaint_about(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("([", "is not a regular expression"),
        ("*a", "is not a regular expression"),
        ("a{3,1}", "is not a regular expression"),
        ("a\0", "is not a regular expression"),
        ("a" * 513, "longer than 512"),
        (r"\bno\b", r"has \b"),
        (r"^(a)\1$", r"has \1"),
        (r"\Aa\Z", r"has \A"),
        (r"^\x22$", r"has \x"),
        ("^(?=a)", "has (?="),
        ("^(?<!a)", "has (?<"),
        ("(?i)a", "has (?i"),
        ('^"$', "JSON writes otherwise"),
        (r"^\\$", "JSON writes otherwise"),
        (r"^\n$", "JSON writes otherwise"),
        (r"^[\n]$", "JSON writes otherwise"),
        ("^a{129}$", "more than 128"),
        ("^a{1,5000}$", "more than 128"),
        ("^a{,3}$", "is no repetition"),
        ("^{x}$", "is no repetition"),
        ("^a++$", "possessive"),
        ("a^b", "anchor inside"),
        ("a$b", "anchor inside"),
        ("(a$|b)c", "anchor inside"),
        ("c(^a|b)", "anchor inside"),
        ("^[[:alpha:]]$", "set within a set"),
    ],
)
def test_a_pattern_that_is_not_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    assert reason in (complaint_about(pattern) or "")


@pytest.mark.parametrize(
    ("pattern", "n"),
    [("", 0), ("abc", 3), ("^[a-z]{1,50}$", 50), ("(ab){3}", 6), ("((a{1,9}){1,9}b){2}", 164), ("a{7,}", 7), ("a*", 1)],
)
def test_repetitions_are_counted_as_if_written_out(pattern: str, n: int) -> None:
    assert count_repeats(pattern) == n


@pytest.mark.parametrize(("least", "most"), [(0, 0), (0, 3), (2, 3), (3, 3), (2, None), (0, 128)])
def test_a_length_is_a_pattern_of_plain_characters(least: int, most: int | None) -> None:
    pattern = of_length(least, most)
    assert complaint_about(pattern) is None
    for n in range(6):
        assert bool(re.search(pattern, "é" * n)) == (least <= n and (most is None or n <= most))
    assert not any(re.search(pattern, "a" * least + bad) for bad in ('"', "\\", "\t", "\x1f"))


@pytest.mark.parametrize(
    ("pattern", "spelled_out"),
    [
        (r"^\d+(\.\d+)?$", r"^\d+(\.\d+|)$"),
        ("^((a|b+)?c+)?$", "^((a|b+|)c+|)$"),
        ("^(ab+)??$", "^(ab+|)$"),
        (r"^\)?[)?]?[^)]?a?$", r"^\)?[)?]?[^)]?a?$"),
        (r"^[]\])?]+(a)*$", r"^[]\])?]+(a)*$"),
    ],
)
def test_an_optional_group_is_spelled_out(pattern: str, spelled_out: str) -> None:
    assert with_optional_groups_spelled_out(pattern) == spelled_out
