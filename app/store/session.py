"""Store: the database, and how a transaction on it begins and ends."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import cache, partial
from typing import Any

import orjson
from sqlalchemy import Connection, TextClause, event, text
from sqlalchemy.dialects import postgresql, registry, sqlite
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random

from app.store.base import Base
from app.store.inserter import Rows, SqliteInserter


class Store:
    """One database. `begin()` for what writes, `read()` for what only looks; nothing else opens a session.

    `insert()` is for the rows that the hot path leaves behind.
    """

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {"json_serializer": dump_json, "json_deserializer": orjson.loads}
        options["hide_parameters"] = True  # an error is logged, and what it was about may be a prompt
        if url.startswith("sqlite"):
            options["connect_args"] = {"isolation_level": None, "factory": _SqliteConnection}
        else:
            options |= {"pool_pre_ping": True, "pool_size": 10, "max_overflow": 20}
        self.engine = create_async_engine(url, **options)
        self._inserter: SqliteInserter | None = None
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine.sync_engine, "connect", _configure_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
            self._inserter = SqliteInserter(partial(_connect_sqlite, self.engine.url.database or ":memory:"))
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        reader = self.engine.execution_options(read_only=True)
        self._readers = async_sessionmaker(reader, expire_on_commit=False)

    def begin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction that commits at the end, or rolls back on an exception."""
        return self._sessions.begin()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A snapshot to look at; SQLite's writers do not wait for it."""
        async with self._readers() as session:
            yield session

    async def insert(self, table: type[Base], rows: Rows) -> None:
        """Insert the rows of plain values that are not there yet; committed, all together, when it returns."""
        if self._inserter:
            await self._inserter.insert(table, rows)
        else:
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            async with self.engine.begin() as connection:
                await connection.execute(_insert_columns(table, tuple(columns)), columns)

    async def close(self) -> None:
        if self._inserter:
            await self._inserter.close()
        await self.engine.dispose()


def insert_if_absent(session: AsyncSession, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that does nothing where a unique constraint says the row is there already."""
    return insert_into(session, table).on_conflict_do_nothing()


def insert_into(session: AsyncSession, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can be told what to do about a conflict."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgresql else sqlite.insert(table)


@cache
def _insert_columns(table: type[Base], names: tuple[str, ...]) -> TextClause:
    """One statement for all rows, each parameter a column of them: what is done for each statement is done once."""
    dialect = registry.load("postgresql")()
    types = [table.__table__.c[name].type.compile(dialect) for name in names]
    arrays = ", ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in zip(names, types, strict=True))
    into = f"{table.__tablename__} ({', '.join(names)})"
    return text(f"INSERT INTO {into} SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING")  # noqa: S608


def dump_json(value: Any) -> str:
    return orjson.dumps(value).decode()


class _SqliteConnection(sqlite3.Connection):
    """One that was closed with a statement cut short, as by a client that left, would keep its transaction, and with it
    everybody from writing, until the garbage collector finds that statement.
    """

    def close(self) -> None:
        with suppress(sqlite3.Error):  # it may be closed already
            self.rollback()
        super().close()


def _connect_sqlite(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    _configure_sqlite(connection, None)
    return connection


def _configure_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    _use_wal(cursor)
    for pragma in ("busy_timeout=30000", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@retry(
    retry=retry_if_exception_type(sqlite3.OperationalError),
    stop=stop_after_delay(30),
    wait=wait_random(0, 0.05),
    reraise=True,
)
def _use_wal(cursor: Any) -> None:
    """Those who make a new file together get in each other's way, and SQLite does not let them wait in turn."""
    cursor.execute("PRAGMA busy_timeout=100")
    cursor.execute("PRAGMA journal_mode=WAL")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a reader that turns writer half-way fails with `database is locked`."""
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
