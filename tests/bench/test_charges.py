"""What a round of charges tells."""

from bench.charges import CONNECTIONS, Measured, lines

NONE = Measured(charges=1000, commits=0, seconds=1.0, cpu_seconds=0.01)
GROUPED = Measured(charges=500, commits=50, seconds=2.0, cpu_seconds=0.1)


def test_charges_commits_and_cpu_time_are_told_of_each_writer() -> None:
    runs = {(n, name): [measured] for n in CONNECTIONS for name, measured in (("none", NONE), ("SQLite", GROUPED))}
    assert lines(runs, ["none", "SQLite"], lambda of: of.with_range)[:4] == [
        ["1", "charges/s", "1,000", "250"],
        ["1", "commits/s", "–", "25.0"],
        ["1", "rows / commit", "–", "10.0"],
        ["1", "CPU µs / charge", "10.0", "200"],
    ]


def test_what_the_sums_cost_is_told_round_by_round() -> None:
    with_sums = [Measured(1000, 10, seconds, 0.3) for seconds in (4.0, 2.0)]
    without = [Measured(1000, 10, seconds, 0.1) for seconds in (2.0, 1.0)]
    runs = {(n, name): found for n in CONNECTIONS for name, found in (("X", with_sums), ("X, no sums", without))}
    told = [line[-1] for line in lines(runs, ["X", "X, no sums"], lambda of: of.with_range)[:4]]
    assert told == ["0.50", "0.50", "1.00", "3.00"]
