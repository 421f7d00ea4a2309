"""One HTTP/1.1 connection to an engine: a request goes out, and the answer's body comes in as it arrives."""

import asyncio
from typing import cast

import httptools

HIGH_WATER_BYTES = 256 * 1024
OK = 200


class ConnectionBroken(ConnectionError):
    """The engine closed the connection before its answer was whole, or did not speak HTTP."""


class EngineSilent(TimeoutError):
    """The engine sent nothing for as long as the limit allows."""


class EngineConnection(asyncio.Protocol):
    """Carries one request after another; `is_reusable` between them.

    A plain protocol over httptools, since this is the product's hot path (see bench/).
    """

    def __init__(self) -> None:
        self.status = 0
        self.is_complete = True
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._pieces: list[bytes] = []
        self._n_bytes = 0
        self._is_paused = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since = 0.0
        self._silence: asyncio.TimerHandle | None = None

    @property
    def is_reusable(self) -> bool:
        return self.is_complete and self._error is None and not self._transport.is_closing()

    async def ask(self, request: bytes, *, silence_seconds: float) -> None:
        """Returns when the answer's head is here, as `status`. Raises ConnectionBroken, EngineSilent."""
        self.status, self.is_complete = 0, False
        self._silence = self._loop.call_later(silence_seconds, self._check_silence, silence_seconds)
        self._transport.write(request)
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        """All of the body that has come since the last call; nothing at its end. Raises as `ask` does."""
        while not self._pieces and not self.is_complete:
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._n_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    async def read_all(self) -> bytes:
        whole = bytearray()
        while data := await self.read():
            whole += data
        return bytes(whole)

    def abort(self) -> None:
        """The engine ends the generation when its client has gone."""
        self._end_silence()
        self._transport.abort()

    # what waits

    async def _wait(self) -> None:
        if self._error:
            raise self._error
        self._waiter = self._loop.create_future()
        self._waits_since = self._loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_silence(self, limit_seconds: float) -> None:
        """One timer for the whole answer: each wait begins a new silence, and a slow client's time is not one."""
        left = self._waits_since + limit_seconds - self._loop.time() if self._waiter else limit_seconds
        if left <= 0:
            self._fail(EngineSilent(f"silent for {limit_seconds:g} seconds"))
        else:
            self._silence = self._loop.call_later(left, self._check_silence, limit_seconds)

    def _end_silence(self) -> None:
        if self._silence:
            self._silence.cancel()
            self._silence = None

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._end_silence()
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionBroken(str(exc or "the engine closed the connection")))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionBroken(f"not HTTP: {error}"))
            self._transport.abort()
        self._wake()

    # httptools

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._n_bytes += len(body)
        if self._n_bytes > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.is_complete = True
        self._end_silence()
        if not self._parser.should_keep_alive():
            self._error = ConnectionBroken("the engine keeps no connection")
