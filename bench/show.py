"""Progress and tables of figures: on the terminal, and as Markdown."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench.report import cells, headings, notes, rows
from bench.rounds import Results, Tell

WIDTH_OF_A_FILE = 180

out = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_FILE)

Cells = Sequence[str]


@contextmanager
def telling(steps: int) -> Iterator[Tell]:
    """A progress bar; call it before each step with what that is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=out) as progress:
        bar = progress.add_task("", total=steps)

        def tell(what: str) -> None:
            progress.update(bar, description=what)
            progress.advance(bar)

        yield tell


def publish(results: Results, facts: Mapping[str, str], head: str, file: Path | None) -> None:
    """On the terminal with the rounds' spread, in the file with their range."""
    told, found = {**facts, **notes(results)}, rows(results)
    show(headings(results), [cells(results, row, lambda of: of.with_spread) for row in found], told)
    if file:
        lines = [cells(results, row, lambda of: of.with_range) for row in found]
        write(file, head.format(rounds=results.rounds, seconds=results.seconds), headings(results), lines, told)


def show(headings: Cells, lines: Sequence[Cells], facts: Mapping[str, str]) -> None:
    """A first column that says the same again and again is said once."""
    table = Table()
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="left" if column < 2 else "right")
    before = ""
    for first, *rest in lines:
        if first != before:
            table.add_section()
        table.add_row("" if first == before else first, *rest)
        before = first
    out.print(table)
    for name, fact in facts.items():
        out.print(f"{name}: {fact}", style="dim", markup=False, highlight=False)


def write(path: Path, head: str, headings: Cells, lines: Sequence[Cells], facts: Mapping[str, str]) -> None:
    told = "".join(f"- {name}: {fact}\n" for name, fact in facts.items())
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{head}\n\n{told}\n{markdown(headings, lines)}")
    out.print(f"written to {path}", markup=False)


def markdown(headings: Cells, lines: Sequence[Cells]) -> str:
    """The first two columns are words, the others numbers."""
    rule = ["---" if column < 2 else "---:" for column in range(len(headings))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (headings, rule, *lines))
