"""Rows inserted into SQLite, many in one commit, at the least cost."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from app.store.base import Base

MAX_ROWS = 512  # an SQLite statement takes 32,766 values
MAX_AT_ONCE = 64  # for each number of rows up to here there is a statement

Row = Mapping[str, Any]
Rows = Sequence[Row]
Columns = Callable[[Row], tuple[Any, ...]]


class SqliteInserter:
    """A connection of its own on a thread of its own, spoken to without SQLAlchemy between.

    SQLAlchemy's async driver crosses to its thread and back for each statement, and a row costs it four times as much
    as it costs SQLite (see bench/charges.py): too much for what every request does.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "inserter")

    async def insert(self, table: type[Base], rows: Rows) -> None:
        """Rows of plain values; those that are there already are passed over. Raises SQLAlchemy's DBAPIError.

        Once begun it is gone through with, cancelled or not.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._insert, table, rows)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _insert(self, table: type[Base], rows: Rows) -> None:
        try:
            self._connection = self._connection or self._connect()
            parts = _parts(rows)
            with self._connection:  # commits, or rolls back
                if len(parts) > 1:  # one statement is a transaction of its own
                    self._connection.execute("BEGIN IMMEDIATE")
                for part in parts:
                    statement, values_of = _statement(table, len(part))
                    self._connection.execute(statement, [*chain.from_iterable(map(values_of, part))])
        except sqlite3.Error as error:
            raise DBAPIError.instance("INSERT", None, error, sqlite3.Error) from error

    def _close(self) -> None:
        if self._connection:
            self._connection.close()


def _parts(rows: Rows) -> Sequence[Rows]:
    """All rows, in as few parts as there are statements for: each is made and prepared once."""
    return [rows] if len(rows) <= MAX_AT_ONCE else [*_powers_of_two(rows)]


def _powers_of_two(rows: Rows) -> Iterator[Rows]:
    begin = 0
    while left := len(rows) - begin:
        size = min(1 << left.bit_length() - 1, MAX_ROWS)
        yield rows[begin : begin + size]
        begin += size


@cache
def _statement(table: type[Base], n_rows: int) -> tuple[str, Columns]:
    """And what it takes of a row, in its order.

    One statement for many rows: after each the thread waits for its turn, which the event loop's thread has meanwhile.
    """
    insert = sqlite.insert(table).on_conflict_do_nothing().compile(dialect=sqlite.dialect())
    names = insert.positiontup or []
    one = f"({', '.join('?' * len(names))})"
    return str(insert).replace(one, ", ".join([one] * n_rows)), itemgetter(*names)
