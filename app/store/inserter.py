"""Rows inserted into SQLite, many in one commit, at the least cost."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from app.store.base import Base

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
        statement, values_of = _statement(table)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._insert, statement, values_of, rows)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _insert(self, statement: str, values_of: Columns, rows: Rows) -> None:
        try:
            self._connection = self._connection or self._connect()
            with self._connection:  # commits, or rolls back
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(statement, map(values_of, rows))
        except sqlite3.Error as error:
            raise DBAPIError.instance(statement, None, error, sqlite3.Error) from error

    def _close(self) -> None:
        if self._connection:
            self._connection.close()


@cache
def _statement(table: type[Base]) -> tuple[str, Columns]:
    """And what it takes of a row, in its order: SQLite looking up each value by its name costs a third of an insert."""
    insert = sqlite.insert(table).on_conflict_do_nothing().compile(dialect=sqlite.dialect())
    return str(insert), itemgetter(*(insert.positiontup or ()))
