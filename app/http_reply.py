"""An HTTP response written straight to uvicorn's transport, as its own `send` would have written it."""

import asyncio
from collections.abc import Callable, Sequence

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

Header = tuple[bytes, bytes]

CHUNKED: Header = (b"transfer-encoding", b"chunked")
LAST_CHUNK = b"0\r\n\r\n"


class Reply:
    """Either `whole`, or `begin`, some `write` and `end`; nothing of it waits. `keep_alive` may change until it begins.

    For who can be called back when the client falls behind: that is uvicorn's `pause_writing` and `resume_writing`.
    """

    __slots__ = ("_defaults", "_on_end", "_transport", "has_begun", "keep_alive")

    def __init__(self, transport: asyncio.Transport, defaults: bytes, on_end: Callable[[], None]) -> None:
        """`defaults`: the lines of headers that all answers have."""
        self._transport = transport
        self._defaults = defaults
        self._on_end = on_end
        self.has_begun = False
        self.keep_alive = True

    def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        length = (b"content-length", b"%d" % len(body))
        self._finish(self._head(status, [*headers, length]) + body)

    def begin(self, status: int, headers: Sequence[Header]) -> None:
        self._transport.write(self._head(status, [*headers, CHUNKED]))

    def write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, data: bytes) -> None:
        self._finish(b"%x\r\n%b\r\n" % (len(data), data) + LAST_CHUNK)

    def cut(self) -> None:
        self._transport.abort()

    def _head(self, status: int, headers: Sequence[Header]) -> bytes:
        self.has_begun = True
        closing = b"" if self.keep_alive else b"connection: close\r\n"
        return b"".join([STATUS_LINE[status], self._defaults, *lines(headers), closing, b"\r\n"])

    def _finish(self, data: bytes) -> None:
        self._transport.write(data)
        if not self.keep_alive:
            self._transport.close()
        self._on_end()


def lines(headers: Sequence[Header]) -> list[bytes]:
    return [name + b": " + value + b"\r\n" for name, value in headers]
