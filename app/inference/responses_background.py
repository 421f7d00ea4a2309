"""Background responses at work: in this gateway, but detached from the client that asked for them."""

import asyncio
import time
from contextlib import aclosing, suppress
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import structlog

from app.error_handlers import HANDLED, InternalError
from app.errors import APIError
from app.inference import responses_running as running
from app.inference import responses_store as stored
from app.inference.responses_exchange import Exchange
from app.inference.responses_journal import Journal
from app.inference.responses_object import Response
from app.settings import Settings
from app.store.session import Store

log = structlog.get_logger()

MAX_LAPSED = 100


class TooManyAtWork(APIError):
    """There is no connection that would bound their number."""

    status_code, type, code = 429, "rate_limit_error", "too_many_background_responses"
    headers = {"Retry-After": "5"}

    def __init__(self, n_at_work: int) -> None:
        super().__init__(
            f"This gateway works on {n_at_work} background responses already; try again when some are done."
        )


class Backgrounds:
    """Those of this gateway. Somebody calls `look_after()` now and then, and `close()` at the end."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._looked_at = float("-inf")

    async def begin(self, exchange: Exchange) -> Response:
        """The queued response, durable; or what the request's idempotency key made before.

        Raises TooManyAtWork, Conflict.
        """
        if len(self._tasks) >= self._settings.max_background_responses:
            raise TooManyAtWork(len(self._tasks))
        response, response_id, events = exchange.response, exchange.response["id"], exchange.queue()
        async with self._store.begin() as session:
            claimed = await exchange.claim(session)
            if claimed != response_id:
                return (await stored.get(session, exchange.org_id, claimed)).body
            await exchange.save(session, response)
            await running.begin(session, response_id, events, lease_seconds=self._settings.lease_seconds)
        task = self._tasks[response_id] = asyncio.create_task(self._work(exchange))
        task.add_done_callback(lambda _: self._tasks.pop(response_id))
        return response

    def end(self, response_id: str) -> None:
        """The generation, after the response has been ended in the store."""
        if task := self._tasks.get(response_id):
            task.cancel()
        self._tell(response_id)

    def news(self, response_id: str) -> asyncio.Event:
        """Set when this gateway next writes something of it; others may write as well."""
        return self._news.setdefault(response_id, asyncio.Event())

    async def look_after(self) -> None:
        """Hold on to what is worked on here; end what was ended elsewhere; fail what others have left."""
        now = time.monotonic()
        await self._hold(list(self._tasks))
        async with self._store.read() as session:
            lost = await running.lapsed(session, limit=MAX_LAPSED)
        # After a time without the database everybody's leases have lapsed: their holders come first.
        if now - self._looked_at < self._settings.lease_seconds:
            for response_id in lost:
                await self._fail(response_id, "The server stopped while it worked on the response.", only_lapsed=True)
        self._looked_at = now

    async def end_ended(self) -> None:
        """End the generation of what was cancelled or deleted through another gateway."""
        mine = list(self._tasks)
        if not mine:
            return
        async with self._store.read() as session:
            still = await running.still_running(session, mine)
        for response_id in set(mine) - still:
            self.end(response_id)

    async def close(self, *, grace_seconds: float) -> None:
        """Let those at work end within the grace; the others have failed."""
        tasks = dict(self._tasks)
        if tasks:
            await asyncio.wait(tasks.values(), timeout=grace_seconds)
        left = [response_id for response_id, task in tasks.items() if not task.done()]
        for response_id in left:
            tasks[response_id].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for response_id in left:
            await self._fail(response_id, "The server was shut down before the response was finished.")

    async def _hold(self, mine: list[str]) -> None:
        if mine:
            async with self._store.begin() as session:
                await running.hold(session, mine, lease_seconds=self._settings.lease_seconds)

    async def _work(self, exchange: Exchange) -> None:
        response_id = exchange.response["id"]
        journal = Journal(partial(self._write, response_id))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(journal.write())
                async with aclosing(exchange.events()) as batches:
                    async for events in batches:
                        journal.add(events)
                journal.close()
        except* running.Ended:
            log.info("background response ended by others", response=response_id)
        except* Exception as errors:
            log.exception("background response failed", response=response_id, exc_info=errors)
            await self._fail(response_id, InternalError().message)

    async def _write(self, response_id: str, events: list[dict[str, Any]]) -> None:
        async with self._store.begin() as session:
            await running.tell(session, response_id, events, lease_seconds=self._settings.lease_seconds)
        self._tell(response_id)

    def _tell(self, response_id: str) -> None:
        if event := self._news.pop(response_id, None):
            event.set()

    async def _fail(self, response_id: str, message: str, *, only_lapsed: bool = False) -> None:
        try:
            with suppress(running.Ended):
                async with self._store.begin() as session:
                    await running.fail(session, response_id, message, only_lapsed=only_lapsed)
                log.warning("background response failed", response=response_id, reason=message)
        except HANDLED as error:  # once the lease has lapsed, somebody fails it
            log.warning("background response cannot be failed just now", response=response_id, error=repr(error)[:500])
        self._tell(response_id)
