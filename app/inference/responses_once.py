"""One answer under one idempotency key: who asks the same again, at any gateway, is given the first one's."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.error_handlers import HANDLED
from app.inference import responses_store as stored
from app.inference.responses_exchange import Exchange
from app.inference.responses_object import Response
from app.inference.responses_retold import retold
from app.inference.responses_stream import Event
from app.settings import Settings
from app.store.idempotency import find_answer, find_claimed, release_key, reserve_key
from app.store.session import Store
from app.upkeep.loops import repeat

log = structlog.get_logger()


class Once:
    """An exchange; or, where an earlier same request is being answered, the answer to that one, when it is there.

    The key is held while the exchange works, and let go where it comes to nothing or falls silent: then the next one
    who waits is answered afresh.
    """

    def __init__(self, exchange: Exchange, store: Store, settings: Settings) -> None:
        """`exchange` has a key."""
        self._exchange = exchange
        self._store = store
        self._settings = settings
        self._org_id, self._response_id = exchange.org_id, exchange.response["id"]
        key, self._request = exchange.idempotency
        assert key is not None
        self._key = key
        self.gpu = exchange.gpu
        self.keep_alive_seconds = exchange.keep_alive_seconds

    async def whole(self) -> Response:
        """Raises as the exchange does, and Conflict."""
        async with self._turn() as earlier:
            return earlier or await self._exchange.whole()

    async def events(self) -> AsyncGenerator[list[Event]]:
        """As the exchange's."""
        async with self._turn() as earlier:
            if earlier:
                yield retold(earlier)
                return
            async with aclosing(self._exchange.events()) as batches:
                async for batch in batches:
                    yield batch

    async def failed(self, error: Exception) -> list[Event]:
        return await self._exchange.failed(error)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Response | None]:
        """What an earlier request was answered; else None, and the key is ours until the block ends."""
        if earlier := await self._earlier():
            yield earlier
            return
        pause_seconds = self._settings.lease_seconds / 4
        holding = asyncio.create_task(repeat("hold an idempotency key", self._hold, pause_seconds))
        try:
            yield None
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            await self._let_go()

    async def _earlier(self) -> Response | None:
        while not await self._reserve():
            async with self._store.read() as session:
                if earlier := await find_earlier(session, self._org_id, self._key, self._request):
                    return earlier
            await asyncio.sleep(self._settings.poll_seconds)
        return None

    async def _reserve(self) -> bool:
        """As `_hold`; who leaves meanwhile lets the key go, once it is known to be theirs or not."""
        holding = asyncio.create_task(self._hold())
        try:
            return await asyncio.shield(holding)
        except asyncio.CancelledError:
            await asyncio.gather(holding, return_exceptions=True)
            await self._let_go()
            raise

    async def _hold(self) -> bool:
        """Whether the key is ours for now."""
        seconds = self._settings.lease_seconds
        async with self._store.begin() as session:
            return await reserve_key(
                session, self._org_id, self._key, self._request, self._response_id, seconds=seconds
            )

    async def _let_go(self) -> None:
        try:
            async with self._store.begin() as session:
                await release_key(session, self._org_id, self._key, self._response_id)
        except HANDLED as error:
            log.warning("idempotency key cannot be let go just now; it lapses", error=repr(error)[:500])


async def find_earlier(session: AsyncSession, org_id: str, key: str | None, request: Any) -> Response | None:
    """What an earlier same request was answered, whether it is stored or not. Raises Conflict, UnknownResponse."""
    made = await find_claimed(session, org_id, key, request)
    if made is None:
        return None
    unstored: Response | None = await find_answer(session, org_id, key, request)
    return unstored or (await stored.get(session, org_id, made)).body
