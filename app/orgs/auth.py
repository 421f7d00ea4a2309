"""Lets nobody in without a key, nor where its role does not lead, before a byte of the body is read."""

from typing import Annotated

import structlog
from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.error_handlers import HANDLED, respond
from app.errors import APIError
from app.orgs.key_ring import KeyRing
from app.orgs.keys import CurrentKey
from app.orgs.roles import Access, Role

OPEN_PATHS = frozenset({"/health", "/api/health", "/openapi.json", "/docs", "/redoc"})


class InvalidKey(APIError):
    """One answer for a key that is missing, malformed, unknown, revoked or expired."""

    status_code, type, code = 401, "authentication_error", "invalid_api_key"
    headers = {"WWW-Authenticate": "Bearer"}

    def __init__(self) -> None:
        super().__init__("No valid API key was given. Send it as: Authorization: Bearer <key>")


class InsufficientRole(APIError):
    status_code, type, code = 403, "permission_error", "insufficient_role"

    def __init__(self, role: Role, needed: frozenset[Role]) -> None:
        names = " or ".join(f"'{one}'" for one in Role if one in needed)
        super().__init__(f"This key has the role '{role}'; what was asked needs {names}.")


class RequireKey:
    """ASGI middleware: deny by default, judged by the path that will be routed and nothing the client rebuilt."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            return await self._app(scope, receive, send)
        try:
            key = await authenticate(scope)
        except HANDLED as error:
            return await respond(error)(scope, receive, send)
        scope.setdefault("state", {})["key"] = key
        structlog.contextvars.bind_contextvars(org=key.org_id, key=key.key_id)
        return await self._app(scope, receive, send)


class RequireRole:
    """Around one route: what the router found is what is judged."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key: CurrentKey = scope["state"]["key"]
        needed = self.access.roles(scope.get("method", "WEBSOCKET"))
        if key.role in needed:
            return await self._app(scope, receive, send)
        return await respond(InsufficientRole(key.role, needed))(scope, receive, send)


async def authenticate(scope: Scope) -> CurrentKey:
    """Raises InvalidKey."""
    ring: KeyRing = scope["app"].state.key_ring
    sent = bearer_token(scope)
    key = await ring.authenticate(sent) if sent else None
    if key is None:
        raise InvalidKey
    return key


def bearer_token(scope: Scope) -> str | None:
    """The token of the one `Authorization` header, if it has the right form.

    Nowhere else is a key looked for, which keeps foreign pages out of WebSockets too: a browser opens one to any site,
    but lets no page set this header.
    """
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1 or values[0][:7].lower() != b"bearer ":
        return None
    token = values[0][7:].strip()
    return token.decode() if token.isascii() and len(token) <= 256 else None


def get_current_key(request: Request) -> CurrentKey:
    key: CurrentKey = request.state.key
    return key


def get_current_org(request: Request) -> str:
    return get_current_key(request).org_id


AskingKey = Annotated[CurrentKey, Depends(get_current_key)]
CurrentOrg = Annotated[str, Depends(get_current_org)]
