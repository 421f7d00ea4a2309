"""Store: the database, and how a transaction on it begins and ends."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from sqlite3 import OperationalError
from typing import Any

import anyio
import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random

from app.store.base import Base


class Store:
    """One database. `begin()` for what writes, `read()` for what only looks; nothing else opens a session.

    `write()` is for the few statements that the hot path is made of.
    """

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {"json_serializer": dump_json, "json_deserializer": orjson.loads}
        if url.startswith("sqlite"):
            options["connect_args"] = {"isolation_level": None}
        else:
            options |= {"pool_pre_ping": True, "pool_size": 10, "max_overflow": 20}
        self.engine = create_async_engine(url, **options)
        self._threaded: Engine | None = None
        if self.engine.dialect.name == "sqlite":
            self._threaded = create_engine(self.engine.url.set(drivername="sqlite"), **options)
            for engine in (self.engine.sync_engine, self._threaded):
                event.listen(engine, "connect", _configure_sqlite)
                event.listen(engine, "begin", _begin_sqlite)
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

    async def write(self, work: Callable[[Connection], None]) -> None:
        """Run `work` in a transaction that commits at its end.

        SQLite's async driver crosses to its thread and back for each statement; here the whole transaction does once,
        at a quarter of the cost (see bench/charges.py). Once begun it is gone through with, cancelled or not.
        """
        if self._threaded:
            await anyio.to_thread.run_sync(_transact, self._threaded, work)
        else:
            async with self.engine.begin() as connection:
                await connection.run_sync(work)

    async def close(self) -> None:
        if self._threaded:
            self._threaded.dispose()
        await self.engine.dispose()


def _transact(engine: Engine, work: Callable[[Connection], None]) -> None:
    with engine.begin() as connection:
        work(connection)


def insert_if_absent(session: AsyncSession | Connection, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that does nothing where a unique constraint says the row is there already."""
    dialect = session.dialect if isinstance(session, Connection) else session.get_bind().dialect
    if dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def dump_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _configure_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    _use_wal(cursor)
    for pragma in ("busy_timeout=30000", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@retry(retry=retry_if_exception_type(OperationalError), stop=stop_after_delay(30), wait=wait_random(0, 0.05))
def _use_wal(cursor: Any) -> None:
    """Those who make a new file together get in each other's way, and SQLite does not let them wait in turn."""
    cursor.execute("PRAGMA busy_timeout=100")
    cursor.execute("PRAGMA journal_mode=WAL")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a reader that turns writer half-way fails with `database is locked`."""
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
