"""A WebSocket client of /responses for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect

from tests.asking import MODEL

Json = dict[str, Any]

FINAL = ("response.completed", "response.incomplete", "response.failed", "error")


@asynccontextmanager
async def connected(url: str, headers: dict[str, str], path: str = "/v1/responses") -> AsyncIterator[ClientConnection]:
    async with connect(url.replace("http", "ws", 1) + path, additional_headers=headers, max_size=None) as socket:
        yield socket


async def create(socket: ClientConnection, asked: Any = "Hello there", **fields: Any) -> None:
    body = {"type": "response.create", "model": MODEL, "input": asked, **fields}
    await socket.send(orjson.dumps(body).decode())


async def receive(socket: ClientConnection) -> Json:
    frame = await socket.recv()
    assert isinstance(frame, str)
    event: Json = orjson.loads(frame)
    return event


async def rest_of_turn(socket: ClientConnection) -> list[Json]:
    """The events until the turn's last one."""
    events = [await receive(socket)]
    while events[-1]["type"] not in FINAL:
        events.append(await receive(socket))
    return events


async def turn(socket: ClientConnection, asked: Any = "Hello there", **fields: Any) -> Json:
    """The response, or the error event."""
    await create(socket, asked, **fields)
    last = (await rest_of_turn(socket))[-1]
    response: Json = last.get("response", last)
    return response
