"""Charges that outlive whoever caused them: a hung-up client, a database that is away for a minute."""

import asyncio
from dataclasses import asdict

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_exponential

from app.billing.ledger import Entry, append
from app.store.session import Store

log = structlog.get_logger()

GIVE_UP_SECONDS = 120.0


class Charges:
    """Writes ledger entries. `settle()` before the store closes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: set[asyncio.Task[None]] = set()

    async def record(self, entry: Entry) -> None:
        """Returns when the entry is committed; if the caller is cancelled meanwhile, it is committed all the same."""
        task = asyncio.create_task(self._commit(entry))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        await asyncio.shield(task)

    async def settle(self) -> None:
        await asyncio.gather(*self._pending)

    async def _commit(self, entry: Entry) -> None:
        passing = retry_if_exception_type((DBAPIError, PoolTimeout, OSError))
        try:
            async for attempt in AsyncRetrying(
                retry=passing, stop=stop_after_delay(GIVE_UP_SECONDS), wait=wait_exponential(max=5)
            ):
                with attempt:
                    async with self._store.begin() as session:
                        await append(session, entry)
        except RetryError as error:
            log.error("charge could not be written", entry=asdict(entry), exc_info=error)
