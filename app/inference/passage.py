"""One chat completion on its way from a warm engine to its client, by callbacks alone."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

import orjson
from structlog.contextvars import bound_contextvars

from app import sse
from app.billing.prices import Usage
from app.engines.connection import OK, ConnectionBroken, EngineSilent
from app.engines.pool import Leased
from app.errors import APIError
from app.inference.chat_answer import ChatAnswer
from app.inference.engine_errors import broken_off, failure, lost, refusal
from app.inference.relay import LAST_WORD_SECONDS, Relay

Headers = list[tuple[bytes, bytes]]

UNREAD_SECONDS = 0.01  # to read what has come already

JSON = (b"content-type", b"application/json")
EVENTS: Headers = [(b"content-type", sse.MEDIA_TYPE.encode()), (b"cache-control", b"no-cache")]


class Outlet(Protocol):
    """Where the answer goes. None of it waits."""

    @property
    def has_begun(self) -> bool: ...

    def whole(self, status: int, headers: Headers, body: bytes) -> None: ...

    def begin(self, status: int, headers: Headers) -> None: ...

    def write(self, data: bytes) -> None: ...

    def end(self, data: bytes) -> None: ...

    def cut(self) -> None:
        """Hang up."""


class Passage:
    """Listens to the engine and writes to the client; however it ends, the engine is given back and all is charged.

    It does what `Relay.stream` does for others, without a task. `streams`: the client reads as it comes.
    """

    _outlet: Outlet
    _headers: Headers
    _retry: Callable[[], None]
    _status = 0
    _refusal = b""
    _has_client = True
    _has_engine = True
    _is_quiet = True
    _timer: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def __init__(self, relay: Relay, leased: Leased, answer: ChatAnswer, *, streams: bool) -> None:
        """`leased` is released here."""
        self._relay = relay
        self._leased = leased
        self._engine = leased.engine
        self._client = leased.engine.client
        self._connection, self._was_kept = self._client.take()
        self._answer = answer
        self._streams = streams
        self._gpu = str(relay.target.gpu).encode()

    def begin(self, request: bytes, outlet: Outlet, headers: Headers, retry: Callable[[], None]) -> None:
        """`headers` go with any answer. `retry`: the engine was just closing the connection that we had kept."""
        self._outlet, self._headers, self._retry = outlet, headers, retry
        self._connection.ask(request, self, silence_seconds=self._relay.settings.stream_silence_seconds)
        if self._streams:
            self._arm(self._relay.settings.keep_alive_seconds, self._keep_alive)

    # the client, who may come and go while the charge is written too

    def on_client_gone(self) -> None:
        """Charged is what was generated: of a stream, also what came and was not read, since the client lagged; for a
        whole answer an engine tells of its tokens some at a time, and may say one more word.
        """
        self._has_client = False
        self._disarm()
        if not self._has_engine:
            return
        if self._status != OK:
            self._leave()
            return
        self._connection.resume()
        self._arm(UNREAD_SECONDS if self._streams else LAST_WORD_SECONDS, self._leave)

    def on_client_slow(self) -> None:
        """One that takes nothing for as long as an engine may be silent would hold the engine for ever."""
        if self._has_engine:
            self._connection.pause()
            limit_seconds = self._relay.settings.stream_silence_seconds
            self._stall = asyncio.get_running_loop().call_later(limit_seconds, self._outlet.cut)

    def on_client_ready(self) -> None:
        self._end_stall()
        if self._has_engine:
            self._connection.resume()

    # the engine; whatever goes wrong here, a bug too, is told to the client, since nobody above would

    def on_status(self, status: int) -> None:
        self._status = status

    def on_data(self, data: bytes) -> None:
        self._engine.heard()
        if self._status != OK:
            self._refusal += data
            return
        try:
            events = self._answer.feed(data)
        except Exception as error:  # noqa: BLE001
            self._fail(partial(failure, error))
            return
        if not self._has_client:
            self._leave()
        elif events:
            self._write(events)

    def on_end(self) -> None:
        if not self._has_client:
            self._leave()
            return
        if self._status != OK:
            self._fail(partial(refusal, self._status, self._refusal))
            return
        try:
            last, usage = self._last(), self._answer.usage
        except Exception as error:  # noqa: BLE001
            self._fail(partial(failure, error))
            return
        self._release()
        self._charge(usage, partial(self._finish, last))

    def on_failure(self, error: ConnectionBroken | EngineSilent) -> None:
        is_unheard = self._was_kept and not (self._status or self._outlet.has_begun)
        if not self._has_client:  # what it was told until it left is still its to pay
            self._leave()
        elif is_unheard and isinstance(error, ConnectionBroken):
            self._disarm()
            self._release()
            self._retry()
        else:
            self._fail(partial(lost, self._relay.target, error))

    def _last(self) -> bytes:
        """Raises EngineError, EngineLost."""
        if not self._answer.is_done:
            raise broken_off()
        return self._answer.last()

    # ends

    def _finish(self, last: bytes) -> None:
        self._disarm()
        if not self._has_client:
            return
        if self._streams:
            self._begin_stream()
            self._outlet.end(last)
        else:
            self._outlet.whole(200, [(b"x-gpu-type", self._gpu), *self._headers, JSON], last)

    def _leave(self) -> None:
        self._disarm()
        self._release()
        self._charge(self._answer.usage, lambda: None)

    def _fail(self, tell: Callable[[], APIError]) -> None:
        """Nothing is charged."""
        self._disarm()
        self._release()
        # Who calls us back is a connection that others have used: its log lines would be theirs.
        with bound_contextvars(request=self._relay.request_id):
            error = tell()
        if not self._has_client:
            return
        if self._outlet.has_begun:
            self._outlet.end(sse.encode(error.body()))
        else:
            more = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
            self._outlet.whole(error.status_code, [*self._headers, *more, JSON], orjson.dumps(error.body()))

    def _release(self) -> None:
        """From here on the connection is another's."""
        self._has_engine = False
        self._end_stall()
        self._client.give_back(self._connection)
        self._leased.release()
        self._relay.let_go()

    def _charge(self, usage: Usage, then: Callable[[], None]) -> None:
        if usage:
            self._relay.spend(usage)
            self._relay.charges.submit(self._relay.entry(usage), then)
        else:
            then()

    # the stream

    def _write(self, events: bytes) -> None:
        self._is_quiet = False
        self._begin_stream()
        self._outlet.write(events)

    def _begin_stream(self) -> None:
        if not self._outlet.has_begun:
            self._outlet.begin(200, [*EVENTS, (b"x-gpu-type", self._gpu), *self._headers])

    def _keep_alive(self) -> None:
        if self._is_quiet:
            self._write(sse.KEEP_ALIVE)
        self._is_quiet = True
        self._arm(self._relay.settings.keep_alive_seconds, self._keep_alive)

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _end_stall(self) -> None:
        if self._stall:
            self._stall.cancel()
