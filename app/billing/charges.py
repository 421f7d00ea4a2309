"""Charges that outlive whoever caused them: a hung-up client, a database that is away for a minute."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import structlog
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import AsyncRetrying, RetryError, retry_if_exception, stop_after_delay, wait_exponential

from app.billing.budgets import Budgets
from app.billing.funds import Funds
from app.billing.ledger import Entry, append_all
from app.store.session import Store

log = structlog.get_logger()

GIVE_UP_SECONDS = 120.0
DATA_EXCEPTION = "22"  # the class of such SQLSTATEs
MAX_BATCH = 1000  # a PostgreSQL statement takes 32,767 parameters


def _tell(committed: asyncio.Future[None]) -> None:
    if not committed.done():
        committed.set_result(None)


def is_passing(error: BaseException) -> bool:
    """Whether it may be over when the database is back."""
    cause = getattr(error, "orig", None)
    # asyncpg tells of what it cannot encode, and PostgreSQL of what it cannot hold, under names that say neither.
    is_unspeakable = isinstance(getattr(cause, "__cause__", None), ValueError)
    is_refused = str(getattr(cause, "sqlstate", None) or "").startswith(DATA_EXCEPTION)
    is_final = isinstance(error, IntegrityError | DataError) or is_unspeakable or is_refused
    return isinstance(error, DBAPIError | PoolTimeout | OSError) and not is_final


class Charges:
    """Writes ledger entries, as many as wait in one commit. `settle()` before the store closes."""

    def __init__(
        self, store: Store, funds: Funds, *, price_version: str | None = None, budgets: Budgets | None = None
    ) -> None:
        self._store = store
        self.funds = funds
        self._price_version = price_version
        self._budgets = budgets
        self._waiting: list[tuple[Entry, Callable[[], object]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, entry: Entry) -> None:
        """Returns when the entry is committed; if the caller is cancelled meanwhile, it is committed all the same."""
        committed = asyncio.get_running_loop().create_future()
        self.submit(entry, partial(_tell, committed))
        await committed

    def submit(self, entry: Entry, then: Callable[[], object]) -> None:
        """`then` is called when the entry is committed."""
        self._waiting.append((entry, then))
        self.funds.spend(entry.org_id, -entry.amount_micros)
        if self._budgets:
            self._budgets.count(entry)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def settle(self) -> None:
        if self._writing:
            await self._writing

    async def _write(self) -> None:
        """Until nobody waits. While one batch is being committed, the next one gathers."""
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            await self._commit([entry for entry, _ in batch])
            for entry, then in batch:
                self.funds.committed(entry.org_id, -entry.amount_micros)
                _call(then)
        self._writing = None

    async def _commit(self, entries: Sequence[Entry]) -> None:
        """An entry that cannot be written, whatever the reason, must not hold up the others."""
        try:
            await self._commit_together(entries)
        except Exception as error:
            if len(entries) == 1:
                log.error("charge refused by the database", entry=asdict(entries[0]), exc_info=error)
                return
            for entry in entries:
                await self._commit([entry])

    async def _commit_together(self, entries: Sequence[Entry]) -> None:
        try:
            await append_all(self._store, entries, price_version=self._price_version)
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("charges wait for the database", n=len(entries), error=str(error))
            await self._commit_patiently(entries)

    async def _commit_patiently(self, entries: Sequence[Entry]) -> None:
        passing = retry_if_exception(is_passing)
        try:
            async for attempt in AsyncRetrying(
                retry=passing, stop=stop_after_delay(GIVE_UP_SECONDS), wait=wait_exponential(max=5)
            ):
                with attempt:
                    await append_all(self._store, entries, price_version=self._price_version)
        except RetryError as error:
            log.error("charges could not be written", entries=[asdict(entry) for entry in entries], exc_info=error)


def _call(then: Callable[[], object]) -> None:
    """What fails in it is its own affair: all charges to come wait for who calls."""
    try:
        then()
    except Exception as error:
        log.error("unhandled error", exc_info=error)
