"""uvicorn's WebSockets, but a server that shuts down asks the application to end them, instead of cutting them off."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# An ASGI message of our own: close the connection when what runs on it is over.
SHUTDOWN = "websocket.shutdown"


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn waits for its connections within the grace of its shutdown."""

    def shutdown(self) -> None:
        if self.close_sent or not self.handshake_complete:
            super().shutdown()
            return
        message: Any = {"type": SHUTDOWN}
        self.queue.put_nowait(message)
