"""The other end of a connection to an engine: a Unix socket whose every word the test says itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

PATIENCE_SECONDS = 5.0
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def piece(data: bytes) -> bytes:
    """A part of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(data: bytes, *, status: int = 200) -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data)


@dataclass
class Peer:
    """One connection, seen from the engine."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def asked(self) -> bytes:
        """The body of the next request."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            _, _, length = head.lower().partition(b"content-length: ")
            return await self.reader.readexactly(int(length.split(b"\r\n")[0] or 0))

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hung_up(self) -> None:
        """Returns when the gateway has closed it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            with suppress(ConnectionError):
                await self.reader.read()

    def close(self) -> None:
        self.writer.close()


@dataclass
class EngineDouble:
    socket: Path
    n_connections: int = 0
    _peers: asyncio.Queue[Peer] = field(default_factory=asyncio.Queue)

    async def peer(self) -> Peer:
        """The next connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._peers.get()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        self._peers.put_nowait(Peer(reader, writer))


@asynccontextmanager
async def engine_double() -> AsyncIterator[EngineDouble]:
    with TemporaryDirectory() as folder:  # pytest's own folders are too long a name for a socket
        double = EngineDouble(Path(folder) / "e.sock")
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await double.serve(reader, writer)

        server = await asyncio.start_unix_server(serve, double.socket)
        try:
            yield double
        finally:
            server.close()
            for writer in writers:
                writer.transport.abort()  # what nobody reads would hold up a close
