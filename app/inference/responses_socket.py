"""The WebSocket of /responses: one response after another on one connection, their events as messages.

A turn is a request of its own: its key is looked at again, it is admitted and charged like any other. From responses
that are not stored a client can go on while their connection lasts.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from fastapi import APIRouter
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from app.catalog.preference import wanted_gpu
from app.error_handlers import as_api_error
from app.errors import APIError, BadRequest
from app.ids import new_id
from app.inference import responses_store as stored
from app.inference.admission import admit, parse_json
from app.inference.responses_begin import begin, validated
from app.inference.responses_exchange import Exchange
from app.inference.responses_items import Item
from app.inference.responses_recent import Recent
from app.inference.responses_references import with_referenced
from app.inference.responses_request import ResponseCreate
from app.inference.responses_stream import Event
from app.orgs.auth import InsufficientRole, authenticate
from app.orgs.roles import ASKERS
from app.settings import Settings
from app.socket_protocol import SHUTDOWN

router = APIRouter()

MAX_WAITING = 16
STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")


class TooManyWaiting(APIError):
    status_code, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class ConnectionTooOld(BadRequest):
    code = "websocket_connection_limit_reached"


class Gone(Exception):
    """The client, before it was told everything."""


@dataclass(frozen=True)
class Goodbye:
    """Why we close a connection."""

    close_code: int
    error: APIError | None = None


SHUTTING_DOWN = Goodbye(1001)


class TurnCreate(ResponseCreate):
    """A client's `response.create`."""

    generate: bool = True


class Socket:
    """Reads all the time, so as to hear of a client that leaves; what it reads waits for its turn."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connection = HTTPConnection(scope)
        self._receive = receive
        self._asgi_send = send
        self._settings: Settings = self._connection.app.state.settings
        self._recent = Recent(self._settings.max_body_bytes)
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting_bytes = 0
        self._goodbye: Goodbye | None = None

    async def run(self) -> None:
        """Until the client leaves, the connection has lasted its time, or the server shuts down. Raises Gone."""
        await self._receive()  # that it wants to connect
        await self._send_raw({"type": "websocket.accept"})
        life = asyncio.get_running_loop().call_later(self._settings.websocket_seconds, self._end, self._too_old())
        tasks = [asyncio.create_task(work) for work in (self._read(), self._answer())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            life.cancel()
            for task in tasks:
                task.cancel()  # a turn of who has gone ends here, and is charged
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _too_old(self) -> Goodbye:
        minutes = self._settings.websocket_seconds / 60
        return Goodbye(1000, ConnectionTooOld(f"A connection lasts {minutes:g} minutes; open a new one to go on."))

    def _end(self, goodbye: Goodbye) -> None:
        """After the turn that runs; those that wait are not begun."""
        self._goodbye = self._goodbye or goodbye
        self._waiting.put_nowait(None)

    async def _read(self) -> None:
        while (message := await self._receive())["type"] != "websocket.disconnect":
            if message["type"] == SHUTDOWN:
                self._end(SHUTTING_DOWN)
            else:
                await self._take_in(message.get("bytes") or (message.get("text") or "").encode())

    async def _take_in(self, frame: bytes) -> None:
        """One that would not fit is refused; not to read it would be not to hear the client leave."""
        is_full = self._waiting_bytes + len(frame) > self._settings.max_body_bytes
        if is_full or self._waiting.qsize() >= MAX_WAITING:
            await self._send(error_event(TooManyWaiting("Too much waits on this connection; wait for an answer.")))
            return
        self._waiting_bytes += len(frame)
        self._waiting.put_nowait(frame)

    async def _answer(self) -> None:
        while self._goodbye is None:
            frame = await self._waiting.get()
            if self._connection.app.state.draining:
                self._goodbye = self._goodbye or SHUTTING_DOWN
            elif frame is not None:
                self._waiting_bytes -= len(frame)
                await self._take_turn(frame)
        if self._goodbye.error:
            await self._send(error_event(self._goodbye.error))
        await self._send_raw({"type": "websocket.close", "code": self._goodbye.close_code})

    async def _take_turn(self, frame: bytes) -> None:
        """A failure ends the turn, not the connection."""
        request_id = self._connection.state.request_id = new_id("req")
        structlog.contextvars.bind_contextvars(request=request_id)
        fields: dict[str, Any] = {}
        try:
            fields = parse_json(frame)
            check_envelope(fields)
            await self._respond(fields)
        except Gone:
            raise
        except Exception as error:  # noqa: BLE001 - a turn is what a request is: a bug is logged, and told as one
            self._recent.forget(fields.get("previous_response_id"))
            await self._send({**error_event(as_api_error(error)), **echoed(fields)})

    async def _respond(self, fields: dict[str, Any]) -> None:
        key = self._connection.state.key = await authenticate(self._connection.scope)
        if key.role not in ASKERS:  # any more
            raise InsufficientRole(key.role, ASKERS)
        org_id = key.org_id
        turn = validated(TurnCreate, fields)
        target = await admit(self._connection, org_id, turn.model, wanted_gpu(self._connection.scope, fields))
        remembered = self._recent.find(turn.previous_response_id)
        async with self._connection.app.state.store.read() as session:
            history = remembered or await stored.history(session, org_id, turn.previous_response_id)
            asked = await with_referenced(session, org_id, turn, history)
        exchange = begin(self._connection, target, org_id, asked, history)
        if remembered:
            exchange.adopt(remembered)
        async with aclosing(exchange.events() if turn.generate else exchange.prepared()) as batches:
            async for batch in batches:
                for event in batch:
                    await self._send({**as_on_sockets(event), **echoed(fields)})
        self._note(exchange, asked, history)

    def _note(self, exchange: Exchange, asked: ResponseCreate, history: Sequence[Item]) -> None:
        response = exchange.response
        if response["status"] == "failed":
            self._recent.forget(asked.previous_response_id)
        elif not asked.store:
            self._recent.remember(response["id"], [*history, *exchange.items, *response["output"]])

    async def _send(self, event: Mapping[str, Any]) -> None:
        await self._send_raw({"type": "websocket.send", "text": orjson.dumps(event).decode()})

    async def _send_raw(self, message: Message) -> None:
        """Raises Gone."""
        try:
            await self._asgi_send(message)
        except OSError as error:
            raise Gone from error


class Conversing:
    """The route's ASGI application: below what FastAPI makes of WebSockets, which knows no shutdown."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Gone):
            await Socket(scope, receive, send).run()


router.routes.append(WebSocketRoute("/responses", Conversing()))


def check_envelope(fields: Mapping[str, Any]) -> None:
    """Raises BadRequest."""
    if fields.get("type") != "response.create":
        raise BadRequest("type must be response.create; nothing else is understood here.", param="type")
    if fields.get("background"):
        raise BadRequest("background is not supported over a WebSocket; POST it.", param="background")
    stream_id = fields.get("stream_id")
    if stream_id is not None and not (isinstance(stream_id, str) and STREAM_ID.fullmatch(stream_id)):
        raise BadRequest("stream_id must be 1 to 256 letters, digits, underscores, dashes or dots.", param="stream_id")


def echoed(fields: Mapping[str, Any]) -> dict[str, str]:
    """The client's own mark for a turn. Turns with different marks too come one after the other."""
    stream_id = fields.get("stream_id")
    return {"stream_id": stream_id} if isinstance(stream_id, str) and len(stream_id) <= 256 else {}


def as_on_sockets(event: Event) -> Event:
    """A stream's own error event, where the response could not be stored, says less than one of a WebSocket."""
    if event["type"] != "error":
        return event
    told = {name: event[name] for name in ("code", "message", "param")}
    return {"type": "error", "status": 500, "error": {"type": "server_error", **told}}


def error_event(error: APIError) -> Event:
    """As OpenAI tells of errors on a WebSocket, where clients count on a code."""
    told = error.body()["error"]
    told |= {"code": error.code or error.type}
    if error.headers:
        told["headers"] = dict(error.headers)
    return {"type": "error", "status": error.status_code, "error": told}
