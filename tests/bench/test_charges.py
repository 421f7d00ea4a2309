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
