"""What rounds of cold starts tell."""

from bench.cold_start import BARE, LOAM, NO_STANDBY, lines, ratio

RUNS = {
    ("cold start, seconds", BARE): [20.0, 24.0, 22.0],
    ("cold start, seconds", LOAM): [2.0, 2.2, 9.0],
    ("memory, standby MiB", LOAM): [500.0] * 3,
}


def test_each_figure_is_told_of_the_sides_that_have_it() -> None:
    assert lines(RUNS, [BARE, LOAM, NO_STANDBY], lambda of: of.with_range) == [
        ["cold start", "seconds", "22.0 (20.0..24.0)", "2.20 (2.00..9.00)", "–"],
        ["memory", "standby MiB", "–", "500", "–"],
    ]


def test_the_ratio_is_of_the_medians() -> None:
    assert ratio(RUNS) == 0.1
