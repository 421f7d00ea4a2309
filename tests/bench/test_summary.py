"""Medians and what is told of them."""

import pytest

from bench.summary import Summary, above, short


def test_a_summary_is_the_median_and_the_range() -> None:
    assert Summary.of([3.0, 1.0, 20.0]) == Summary(3.0, 1.0, 20.0)


@pytest.mark.parametrize("values", [[], [None], [1.0, None, 2.0]])
def test_a_figure_that_a_round_lacks_is_not_summarised(values: list[float | None]) -> None:
    assert Summary.of(values) is None


def test_what_is_added_is_taken_round_by_round() -> None:
    assert above([5.0, 9.0, None], [1.0, 2.0, 3.0]) == [4.0, 7.0, None]


def test_rounds_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        above([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0"), (0.126, "0.13"), (12.34, "12.3"), (123.4, "123"), (98765.4, "98,765"), (-45.67, "-45.7")],
)
def test_numbers_are_told_with_the_digits_that_count(value: float, told: str) -> None:
    assert short(value) == told


def test_the_range_and_the_spread_are_told_when_there_is_one() -> None:
    several, one = Summary(10.0, 9.0, 12.0), Summary(10.0, 10.0, 10.0)
    assert (several.with_range, several.with_spread) == ("10.0 (9.00..12.0)", "10.0 ±20%")
    assert (one.with_range, one.with_spread) == ("10.0", "10.0")
