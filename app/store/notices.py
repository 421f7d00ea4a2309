"""What processes on one PostgreSQL tell each other at once. On SQLite nobody hears anything: there one has to look."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.session import Store

log = structlog.get_logger()

CONNECT_SECONDS = 10.0
AGAIN_SECONDS = 0.5
OF_SQLALCHEMY = ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback")


async def notify(session: AsyncSession, channel: str, payload: str) -> None:
    """Heard when this transaction commits, if anybody listens."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(select(func.pg_notify(channel, payload)))


class Listener:
    """A connection of its own, made again when it is lost. `on_notice` gets the payload of each notice, and None
    whenever some may have been missed.
    """

    def __init__(self, store: Store, channel: str, on_notice: Callable[[str | None], None]) -> None:
        self._store = store
        self._channel = channel
        self._on_notice = on_notice
        self.hears = False

    async def run(self) -> None:
        """Until cancelled; on SQLite there is nothing to do."""
        while self._store.engine.dialect.name == "postgresql":
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("cannot listen to the database; looking instead", error=repr(error)[:300])
            finally:
                self.hears = False
            self._on_notice(None)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _listen(self) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()
        connection = await asyncpg.connect(timeout=CONNECT_SECONDS, **self._arguments())
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(self._channel, lambda *told: self._on_notice(told[-1]))
            self.hears = True
            self._on_notice(None)
            await lost.wait()
        finally:
            with suppress(OSError, asyncpg.InterfaceError):
                connection.terminate()

    def _arguments(self) -> dict[str, Any]:
        engine = self._store.engine
        _, arguments = engine.dialect.create_connect_args(engine.url)
        return {name: value for name, value in arguments.items() if name not in OF_SQLALCHEMY}
