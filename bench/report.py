"""The figures as a table: rows for what was measured, columns for the sides. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import Case, Figure
from bench.rounds import Results
from bench.summary import Summary, above, times

STRAIGHT, LOAM = "straight", "loam"
NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """One figure of one case, of each side in each round."""

    case: str
    figure: str
    values: dict[str, list[float | None]]

    def summary(self, side: str) -> Summary | None:
        return Summary.of(self.values.get(side, []))

    def ratio(self, peer: str) -> Summary | None:
        """Of Loam's over the peer's in the same round."""
        ours, theirs = self.values.get(LOAM, []), self.values.get(peer, [])
        return Summary.of(times(ours, theirs)) if len(ours) == len(theirs) else None


def rows(results: Results) -> list[Row]:
    found = [_row(results, case, figure) for case in results.cases for figure in case.figures]
    return [row for row in [*found, *_memory_rows(results)] if any(map(row.summary, results.sides))]


def _row(results: Results, case: Case, figure: Figure) -> Row:
    values = {side: [figure.of(run) for run in results.runs.get((case.name, side), [])] for side in results.sides}
    if figure.added:
        base = values.pop(STRAIGHT, [])
        values = {side: above(own, base) for side, own in values.items() if len(own) == len(base)}
    return Row(case.name, figure.name, values)


def _memory_rows(results: Results) -> list[Row]:
    kib = {side: (held.bytes_with - held.bytes_before) / held.streams / 1024 for side, held in results.held.items()}
    mib = {side: held.bytes_with / (1 << 20) for side, held in results.held.items()}
    streams = next((held.streams for held in results.held.values()), 0)
    return [
        Row(f"{streams:,} open streams", name, {side: [value] for side, value in values.items()})
        for name, values in (("MiB resident", mib), ("KiB a stream", kib))
    ]


def headings(results: Results) -> list[str]:
    return ["case", "figure", *results.sides, *(f"{LOAM} / {peer}" for peer in results.compared)]


def cells(results: Results, row: Row, tell: Callable[[Summary], str]) -> list[str]:
    """What each side has, and how Loam compares with each peer."""
    found = [*map(row.summary, results.sides), *map(row.ratio, results.compared)]
    return [row.case, row.figure, *(tell(summary) if summary else NOTHING for summary in found)]


def notes(results: Results) -> dict[str, str]:
    """What is to be known with the table: what is missing from it, and what is not as it should be."""
    told = {f"not measured: {name}": reason for name, reason in results.missing.items()}
    told |= {f"wrong answers: {name}": what for name, what in results.wrong.items()}
    return told | {f"overloaded: {name}": what for name, what in results.late.items()}
