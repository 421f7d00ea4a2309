"""Sending to a client that may leave, and may have to be kept waiting."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import Receive, Send

from app import sse

# Most requests are over before anybody need look whether their client is still there.
WATCH_AFTER_SECONDS = 0.05


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and cancel it as soon as the client has gone; returns when `work` has really ended."""
    watch = _Watch(receive)
    try:
        await work
    except asyncio.CancelledError:
        if not watch.has_seen_it_go:
            raise
    finally:
        watch.stop()


class _Watch:
    """Cancels the task that made it when the client goes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._looking: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, self._begin)
        self.has_seen_it_go = False

    def stop(self) -> None:
        self._timer.cancel()
        if self._looking:
            self._looking.cancel()
        if self._task and self.has_seen_it_go:
            self._task.uncancel()

    def _begin(self) -> None:
        self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_seen_it_go = True
        assert self._task
        self._task.cancel()


class EventStream:
    """An SSE response that begins with its first byte: until then, an error can still be an HTTP error."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = [(b"content-type", sse.MEDIA_TYPE.encode()), (b"cache-control", b"no-cache"), *headers]
        self._loop = asyncio.get_running_loop()
        self._is_quiet = True
        self._beat: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.has_begun = False

    async def write(self, data: bytes) -> None:
        """Whole events."""
        self._is_quiet = False
        if not self.has_begun:
            await self._begin()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        if not self.has_begun:
            await self._begin()
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    @contextmanager
    def kept_alive(self, every_seconds: float) -> Iterator[None]:
        """Comments while the block has nothing to write."""
        self._timer = self._loop.call_later(every_seconds, self._keep_alive, every_seconds)
        try:
            yield
        finally:
            self._timer.cancel()
            if self._beat:
                self._beat.cancel()

    def _keep_alive(self, every_seconds: float) -> None:
        self._timer = self._loop.call_later(every_seconds, self._keep_alive, every_seconds)
        if self._is_quiet:
            self._beat = self._loop.create_task(self.write(sse.KEEP_ALIVE))
        self._is_quiet = True

    async def _begin(self) -> None:
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
