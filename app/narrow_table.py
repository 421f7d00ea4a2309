"""A table on a terminal that is too narrow for it."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.table import Table

GAP = "  "  # between columns, and before the further lines of a row


def folded(table: Table, width: int) -> Iterator[str]:
    """Header, rows, footer: each on as many lines as it takes for columns to stay whole and below each other."""
    columns = [
        [str(column.header), *map(str, column.cells), *([str(column.footer)] if table.show_footer else [])]
        for column in table.columns
    ]
    widths = [max(map(cell_len, cells)) for cells in columns]
    are_numbers = [column.justify == "right" for column in table.columns]
    lines = _lines(widths, are_numbers, width)
    for cells in zip(*columns, strict=True):
        for line in lines:
            told = GAP.join(_aligned(cells[nth], widths[nth], right=are_numbers[nth]) for nth in line).rstrip()
            if told:
                yield told if line is lines[0] else GAP + told


def _lines(widths: Sequence[int], are_numbers: Sequence[bool], width: int) -> list[list[int]]:
    """Which columns go on which line; numbers that follow one another share one if they can."""
    lines, used = [list[int]()], -len(GAP)
    for _, run in groupby(range(len(widths)), are_numbers.__getitem__):
        columns = list(run)
        wanted = sum(len(GAP) + widths[nth] for nth in columns) if are_numbers[columns[0]] else 0
        for nth in columns:
            needed = len(GAP) + widths[nth]
            if lines[-1] and used + max(needed, wanted) > width:
                lines.append([])
                used = 0
            lines[-1].append(nth)
            used, wanted = used + needed, 0
    return lines


def _aligned(cell: str, width: int, *, right: bool) -> str:
    padding = " " * (width - cell_len(cell))
    return padding + cell if right else cell + padding
