"""Tables of figures, on the terminal and as Markdown."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

WIDTH_IN_A_FILE = 180

out = Console() if sys.stdout.isatty() else Console(width=WIDTH_IN_A_FILE)

Cells = Sequence[str]


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
