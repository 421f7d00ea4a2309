"""Every request gets an id: in its log lines, its charge, and the header `x-request-id`."""

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.ids import new_id

HEADS = ("http.response.start", "websocket.accept", "websocket.http.response.start")

Headers = list[tuple[bytes, bytes]]


def marks(request_id: str, *, simulated: bool) -> Headers:
    """The headers that every answer has."""
    told = [(b"x-request-id", request_id.encode())]
    return [*told, (b"x-loam-simulated", b"true")] if simulated else told


class RequestId:
    """ASGI middleware; says too when the answers are simulated, and what is in the scope's state under `headers`."""

    def __init__(self, app: ASGIApp, *, simulated: bool) -> None:
        self._app = app
        self._simulated = simulated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request=request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] in HEADS:
                told = marks(request_id, simulated=self._simulated)
                message["headers"] = [*message.get("headers", ()), *scope["state"].get("headers", ()), *told]
            await send(message)

        await self._app(scope, receive, send_with_id)
