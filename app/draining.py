"""A server that is about to stop says so to whoever comes, while it ends what it has begun."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.error_handlers import respond
from app.errors import Unavailable


class Draining(Unavailable):
    code = "draining"

    def __init__(self) -> None:
        super().__init__("The server is shutting down; try again in a moment.")


class RefuseWhileDraining:
    """ASGI middleware: every new request is a 503 once the application's state says that it drains."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["app"].state.draining:
            await respond(Draining())(scope, receive, send)
        else:
            await self._app(scope, receive, send)
