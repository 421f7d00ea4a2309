"""Turns every failure into the one error body."""

import errno
import re
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import APIError, BadRequest, Unavailable

log = structlog.get_logger()

HANDLED = (APIError, RequestValidationError, HTTPException, DBAPIError, PoolTimeout, OSError)

# How Pydantic names the branches of a union among the fields on the way to a problem.
UNION_BRANCH = re.compile(r"^(str|int|float|bool|constrained-.*|function-.*|(literal|list|dict)\[.*)$")


NUL_STATES = ("22021", "22P05")  # PostgreSQL's, for a NUL in a text and in JSON


class NoSpace(APIError):
    status_code, type, code = 507, "server_error", "insufficient_storage"


class InternalError(APIError):
    """A bug of ours. What it was stands in the log under the request id, never in the body."""

    def __init__(self) -> None:
        super().__init__("Something went wrong on our side; the server's log has it under this x-request-id.")


class RoutingError(APIError):
    def __init__(self, message: str, *, status_code: int, headers: dict[str, str]) -> None:
        super().__init__(message, headers=headers)
        self.status_code = status_code
        self.type = "invalid_request_error" if status_code < 500 else "server_error"


def install_error_handlers(app: FastAPI) -> None:
    for kind in HANDLED:
        app.add_exception_handler(kind, _respond)


class AnswerBugs:
    """ASGI middleware, inside the one that gives the request its id: an exception that nobody foresaw is a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            log.info("the client left before its request was read")
        except Exception as error:
            if scope["type"] == "lifespan" or has_begun:
                raise
            await respond(error)(scope, receive, send)


async def _respond(request: Request, error: Exception) -> JSONResponse:
    return respond(error)


def respond(error: Exception) -> JSONResponse:
    told = as_api_error(error)
    return JSONResponse(told.body(), told.status_code, dict(told.headers))


def as_api_error(error: Exception) -> APIError:
    """What a client is told of a failure; everything unforeseen is logged as a bug."""
    match error:
        case APIError():
            return error
        case RequestValidationError():
            return validation_error(error.errors())
        case HTTPException():
            return _routing_error(error)
        case OSError() | DBAPIError() | PoolTimeout() if known := _resource_error(error):
            log.warning("resource unavailable", error=repr(error)[:500])
            return known
        case _:
            log.error("unhandled error", exc_info=error)
            return InternalError()


def validation_error(problems: Sequence[Any]) -> BadRequest:
    """Names the field and the reason; never echoes what was sent."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return BadRequest("The body is not valid JSON.")
    param = _field(first["loc"])
    reason = str(first["msg"]).removeprefix("Value error, ")[:1000]
    others = {_field(problem["loc"]) for problem in problems} - {param}
    more = f" (and {len(others)} more field{'s' if len(others) > 1 else ''})" if others else ""
    return BadRequest(f"{param}: {reason}{more}" if param else reason, param=param or None)


def _field(loc: Sequence[str | int]) -> str:
    """`("body", "messages", 0, "content")` -> `messages[0].content`."""
    path = ""
    for part in loc[1:] if loc and loc[0] in ("body", "query", "path", "header") else loc:
        if isinstance(part, str) and UNION_BRANCH.match(part):
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path[:200]


def _routing_error(error: HTTPException) -> RoutingError:
    messages = {
        404: "There is no such route; the routes are listed at /docs.",
        405: "This method is not allowed here.",
    }
    message = messages.get(error.status_code, str(error.detail))
    return RoutingError(message, status_code=error.status_code, headers=dict(error.headers or {}))


def _resource_error(error: Exception) -> APIError | None:
    """Disk and database troubles that pass, and text that PostgreSQL cannot hold; None for what is a bug."""
    if getattr(getattr(error, "orig", None), "sqlstate", None) in NUL_STATES:
        return BadRequest("The request holds a NUL character where text is expected.")
    if "disk is full" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("The server's disk is full; nothing was written. Free some room and try again.")
    lost = isinstance(error, OperationalError | InterfaceError | PoolTimeout | ConnectionError | TimeoutError)
    if lost or getattr(error, "connection_invalidated", False):
        return Unavailable("The database cannot be reached just now; try again in a few seconds.")
    return None
