"""A body is refused as soon as it is known to be too large; compressed ones too, whose size nobody knows."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware for every route but the uploads, which stream to the disk under a cap of their own.

    A WebSocket's messages are held to the same limit below us (see `app/up.py`).
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith("/files"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        size = 0

        async def limited() -> Message:
            """Raises HTTPException, the one kind that FastAPI lets through while it reads a body."""
            nonlocal size
            self._check(headers)
            message = await receive()
            size += len(message.get("body", b""))
            self._check_size(size)
            return message

        await self._app(scope, limited, send)

    def _check(self, headers: Headers) -> None:
        if headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "Send the body without a Content-Encoding.")
        declared = headers.get("content-length", "0")
        self._check_size(int(declared) if declared.isdecimal() else 0)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise HTTPException(413, f"The body is larger than {self._max_bytes} bytes.", {"Connection": "close"})
