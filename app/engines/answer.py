"""An engine's answer that is read as it is wanted."""

import asyncio

from app.engines.connection import ConnectionBroken, EngineConnection, EngineSilent

HIGH_WATER_BYTES = 256 * 1024


class EngineAnswer:
    """Listens to a connection and keeps what has come until it is read; reads no further ahead than it must."""

    def __init__(self, connection: EngineConnection) -> None:
        self.status = 0
        self.is_complete = False
        self._connection = connection
        self._pieces: list[bytes] = []
        self._n_bytes = 0
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def begun(self) -> None:
        """Returns when the answer's head is here, as `status`. Raises ConnectionBroken, EngineSilent."""
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        """All of the body that has come since the last call; nothing at its end. Raises as `begun` does."""
        while not self._pieces and not self.is_complete:
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._n_bytes = 0
        self._connection.resume()
        return data

    async def read_all(self) -> bytes:
        whole = bytearray()
        while data := await self.read():
            whole += data
        return bytes(whole)

    async def _wait(self) -> None:
        if self._error:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    # Listener

    def on_status(self, status: int) -> None:
        self.status = status
        self._wake()

    def on_data(self, data: bytes) -> None:
        self._pieces.append(data)
        self._n_bytes += len(data)
        if self._n_bytes > HIGH_WATER_BYTES:
            self._connection.pause()
        self._wake()

    def on_end(self) -> None:
        self.is_complete = True
        self._wake()

    def on_failure(self, error: ConnectionBroken | EngineSilent) -> None:
        self._error = error
        self._wake()
