"""Sending a stream to a client that may leave, and may have to be kept waiting."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import Message, Receive, Send

from app import sse


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and cancel it as soon as the client has gone; returns when `work` has really ended."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
    finally:
        watcher.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _disconnected(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


class EventStream:
    """An SSE response that begins with its first byte: until then, an error can still be an HTTP error."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = [(b"content-type", sse.MEDIA_TYPE.encode()), (b"cache-control", b"no-cache"), *headers]
        self._lock = asyncio.Lock()
        self.has_begun = False

    async def write(self, data: bytes) -> None:
        async with self._lock:
            await self._begin()
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        async with self._lock:
            await self._begin()
            await self._send({"type": "http.response.body", "body": data, "more_body": False})

    @asynccontextmanager
    async def kept_alive(self, every_seconds: float) -> AsyncIterator[None]:
        """Comments while the block waits for an engine."""
        beat = asyncio.ensure_future(self._beat(every_seconds))
        try:
            yield
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat

    async def _beat(self, every_seconds: float) -> None:
        while True:
            await asyncio.sleep(every_seconds)
            await self.write(sse.KEEP_ALIVE)

    async def _begin(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
