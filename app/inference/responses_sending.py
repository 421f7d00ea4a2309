"""How a response is sent: whole, or as server-sent events."""

from contextlib import aclosing
from typing import Any, Protocol

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.error_handlers import HANDLED
from app.inference.responses_exchange import Exchange
from app.inference.responses_stream import Event, encode
from app.inference.sending import EventStream, until_disconnect


class Work(Protocol):
    """Ends with an object."""

    @property
    def gpu(self) -> str: ...

    async def whole(self) -> dict[str, Any]: ...


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

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_disconnect(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        stream = EventStream(send, [(b"x-gpu-type", self._exchange.gpu.encode())])
        with stream.kept_alive(self._exchange.keep_alive_seconds):
            try:
                async with aclosing(self._exchange.events()) as batches:
                    async for events in batches:
                        await _write(stream, events)
            except HANDLED as error:
                if not stream.has_begun:  # else it was kept alive until now
                    raise
                await _write(stream, await self._exchange.failed(error))
        await stream.end()


async def _write(stream: EventStream, events: list[Event]) -> None:
    for event in events:
        await stream.write(encode(event))


def as_json(body: dict[str, Any], gpu: str | None = None) -> Response:
    headers = {"x-gpu-type": gpu} if gpu else None
    return Response(orjson.dumps(body), media_type="application/json", headers=headers)
