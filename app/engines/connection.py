"""One HTTP/1.1 connection to an engine: a request goes out, and who asked hears the answer as it comes in."""

import asyncio
from typing import Protocol, cast

import httptools

OK = 200


class ConnectionBroken(ConnectionError):
    """The engine closed the connection before its answer was whole, or did not speak HTTP."""


class EngineSilent(TimeoutError):
    """The engine sent nothing for as long as the limit allows."""


class Listener(Protocol):
    """Who hears an answer: its status, its body in pieces, then its end; or, at any time, a failure and no more."""

    def on_status(self, status: int) -> None: ...

    def on_data(self, data: bytes) -> None:
        """All that came together."""

    def on_end(self) -> None: ...

    def on_failure(self, error: ConnectionBroken | EngineSilent) -> None: ...


class EngineConnection(asyncio.Protocol):
    """Carries one request after another; `is_reusable` between them. It may be asked before it is open.

    A plain protocol over httptools that calls back, since this is the product's hot path (see bench/).
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._early = b""
        self._listener: Listener | None = None
        self._pieces: list[bytes] = []
        self._is_complete = False
        self._is_paused = False
        self._is_spent = False
        self._heard_at = 0.0
        self._limit_seconds = 0.0
        self._silence: asyncio.TimerHandle | None = None

    @property
    def is_reusable(self) -> bool:
        return self._listener is None and not self._is_spent

    def ask(self, request: bytes, listener: Listener, *, silence_seconds: float) -> None:
        self._listener = listener
        self._is_complete = False
        self._heard_at, self._limit_seconds = self._loop.time(), silence_seconds
        # One timer serves a connection's answers in turn: one for each would be a good part of what a request costs.
        if self._silence is None or self._silence.when() > self._heard_at + silence_seconds:
            self._watch_silence(silence_seconds)
        if self._transport:
            self._transport.write(request)
        else:
            self._early = request

    def pause(self) -> None:
        """Until `resume`, the engine is read no further: who listens cannot keep up."""
        if self._transport and not (self._is_paused or self._is_spent):
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._heard_at = self._loop.time()  # a slow client's time is not the engine's silence
            if self._transport and not self._is_spent:
                self._transport.resume_reading()

    def abort(self) -> None:
        """The engine ends the generation when its client has gone. The listener hears no more."""
        self._listener = None
        self._spend()
        if self._transport:
            self._transport.abort()

    # silence

    def _watch_silence(self, seconds: float) -> None:
        if self._silence:
            self._silence.cancel()
        self._silence = self._loop.call_later(seconds, self._check_silence)

    def _check_silence(self) -> None:
        self._silence = None
        if self._listener is None:
            return
        left = self._limit_seconds if self._is_paused else self._heard_at + self._limit_seconds - self._loop.time()
        if left > 0:
            self._watch_silence(left)
        else:
            self.fail(EngineSilent(f"silent for {self._limit_seconds:g} seconds"))

    # ends

    def _spend(self) -> None:
        """It carries no further request."""
        self._is_spent = True
        if self._silence:
            self._silence.cancel()
            self._silence = None

    def fail(self, error: ConnectionBroken | EngineSilent) -> None:
        listener = self._listener
        self.abort()
        if listener:
            listener.on_failure(error)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._is_spent:
            self._transport.abort()
        elif self._early:
            self._transport.write(self._early)
        self._early = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(ConnectionBroken(str(exc or "the engine closed the connection")))

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(ConnectionBroken(f"not HTTP: {error}"))
            return
        if self._listener is None:
            self.fail(ConnectionBroken("the engine said what nobody had asked"))
            return
        if self._pieces:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._listener.on_data(body)
        if self._is_complete and self._listener:  # who listens may have had enough
            self.resume()  # it was paused for this answer, and is another's next
            listener, self._listener = self._listener, None  # from here on it may be asked again
            listener.on_end()

    # httptools

    def on_headers_complete(self) -> None:
        if self._listener:
            self._listener.on_status(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._is_complete = True
        if not self._parser.should_keep_alive():
            self._spend()
