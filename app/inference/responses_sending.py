"""How a response is sent: whole, or as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from app import sse
from app.error_handlers import as_api_error
from app.inference.responses_stream import Event, encode
from app.inference.sending import EventStream, until_disconnect


class Work(Protocol):
    """Ends with an object."""

    @property
    def gpu(self) -> str: ...

    async def whole(self) -> dict[str, Any]: ...


class StreamedWork(Protocol):
    """Tells of itself while it goes on."""

    @property
    def gpu(self) -> str: ...

    @property
    def keep_alive_seconds(self) -> float: ...

    def events(self) -> AsyncGenerator[list[Event]]: ...

    async def failed(self, error: Exception) -> list[Event]: ...


class WholeAnswer(Response):
    """Does its work while it is sent, so that a client that leaves ends it."""

    def __init__(self, exchange: Work) -> None:
        super().__init__()
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_disconnect(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        response, gpu = await self._exchange.whole(), self._exchange.gpu
        await as_json({**response, "selected_gpu": gpu}, gpu=gpu)(scope, receive, send)


class StreamedAnswer(Response):
    """Likewise; begins with its first event, so that errors before it are HTTP errors."""

    def __init__(self, exchange: StreamedWork) -> None:
        super().__init__()
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_disconnect(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        stream = EventStream(send, gpu_header(self._exchange.gpu))
        with stream.kept_alive(self._exchange.keep_alive_seconds):
            try:
                await _write_all(stream, self._exchange.events())
            except Exception as error:  # once a stream has begun, nobody above can answer
                if not stream.has_begun:  # else it was kept alive until now
                    raise
                await _write(stream, await self._exchange.failed(error))
        await stream.end(sse.DONE)


class FollowedAnswer(Response):
    """Events that come about whether they are followed or not."""

    def __init__(
        self, events: AsyncGenerator[list[Event]], *, keep_alive_seconds: float, gpu: str | None = None
    ) -> None:
        super().__init__()
        self._events = events
        self._keep_alive_seconds = keep_alive_seconds
        self._gpu = gpu

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_disconnect(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        stream = EventStream(send, gpu_header(self._gpu))
        with stream.kept_alive(self._keep_alive_seconds):
            try:
                await _write_all(stream, self._events)
            except Exception as error:  # as above
                if not stream.has_begun:
                    raise
                await stream.end(sse.encode(as_api_error(error).body()))
            else:
                await stream.end(sse.DONE)


class ToldAnswer(Response):
    """Events that are all there."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__(b"".join([*map(encode, events), sse.DONE]), media_type=sse.MEDIA_TYPE)


async def _write_all(stream: EventStream, events: AsyncGenerator[list[Event]]) -> None:
    async with aclosing(events) as batches:
        async for batch in batches:
            await _write(stream, batch)


async def _write(stream: EventStream, events: list[Event]) -> None:
    for event in events:
        await stream.write(encode(event))


def as_json(body: dict[str, Any], gpu: str | None = None) -> Response:
    return Response(orjson.dumps(body), media_type="application/json", headers={"x-gpu-type": gpu} if gpu else None)


def gpu_header(gpu: str | None) -> list[tuple[bytes, bytes]]:
    return [(b"x-gpu-type", gpu.encode())] if gpu else []
