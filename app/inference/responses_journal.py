"""Writes events of a background response in batches: what gathers while one is written is the next."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential

from app.billing.charges import GIVE_UP_SECONDS, is_passing
from app.inference.responses_stream import Event

# Followers wait for it, and each batch is a commit.
BATCH_SECONDS = 0.25


class Journal:
    """`write()` runs beside who adds; the database may be away for a while."""

    def __init__(self, write: Callable[[list[Event]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[Event] = []
        self._has_more = asyncio.Event()
        self._closed = asyncio.Event()

    def add(self, events: list[Event]) -> None:
        self._waiting += events
        self._has_more.set()

    def close(self) -> None:
        self._closed.set()
        self._has_more.set()

    async def write(self) -> None:
        """Until it is closed and all is written; raises what writing raises."""
        while not self._closed.is_set() or self._waiting:
            await self._has_more.wait()
            self._has_more.clear()
            if self._waiting:
                await self._write_waiting()
                await self._pause()

    async def _write_waiting(self) -> None:
        batch, self._waiting = self._waiting, []
        passing = AsyncRetrying(
            retry=retry_if_exception(is_passing),
            stop=stop_after_delay(GIVE_UP_SECONDS),
            wait=wait_exponential(max=5),
            reraise=True,
        )
        await passing(self._write, batch)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(BATCH_SECONDS):
                await self._closed.wait()
