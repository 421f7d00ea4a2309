"""An HTTP response written straight to uvicorn's transport, as its own `send` would have written it."""

from collections.abc import Sequence

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Header = tuple[bytes, bytes]

CHUNKED: Header = (b"transfer-encoding", b"chunked")
LAST_CHUNK = b"0\r\n\r\n"


class Reply:
    """Either `whole`, or `begin`, some `write` and `end`; nothing of it waits.

    For who can be called back when the client falls behind: that is uvicorn's `pause_writing` and `resume_writing`.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def has_begun(self) -> bool:
        return self._cycle.response_started

    def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        length = (b"content-length", b"%d" % len(body))
        self._finish(self._head(status, [*headers, length]) + body)

    def begin(self, status: int, headers: Sequence[Header]) -> None:
        self._cycle.transport.write(self._head(status, [*headers, CHUNKED]))

    def write(self, data: bytes) -> None:
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, data: bytes) -> None:
        self._finish(b"%x\r\n%b\r\n" % (len(data), data) + LAST_CHUNK)

    def cut(self) -> None:
        self._cycle.transport.abort()

    def _head(self, status: int, headers: Sequence[Header]) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        cycle.body.clear()  # nobody asks for it again, and a stream may last
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        closing = b"" if cycle.keep_alive else b"connection: close\r\n"
        return b"".join([STATUS_LINE[status], *lines, closing, b"\r\n"])

    def _finish(self, data: bytes) -> None:
        cycle = self._cycle
        cycle.transport.write(data)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
