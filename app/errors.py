"""The errors a client may see, and the one body they are told in."""

from collections.abc import Mapping
from typing import Any


class Foreseen(Exception):
    """What whoever typed a command can mend; the message says what it is and how. Subclass it like APIError."""


class APIError(Exception):
    """An answer other than 200. Subclass it beside the function that raises it."""

    status_code = 500
    type = "server_error"
    code: str | None = None
    headers: Mapping[str, str] = {}

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        troubleshooting: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.troubleshooting = troubleshooting
        self.headers = {**self.headers, **(headers or {})}

    def body(self) -> dict[str, Any]:
        return error_body(
            self.message, self.type, param=self.param, code=self.code, troubleshooting=self.troubleshooting
        )


class BadRequest(APIError):
    status_code, type = 400, "invalid_request_error"


class NotFound(APIError):
    status_code, type = 404, "invalid_request_error"


class Conflict(APIError):
    status_code, type = 409, "invalid_request_error"
    headers = {"x-should-retry": "false"}


class TooLarge(APIError):
    status_code, type = 413, "invalid_request_error"


class Unavailable(APIError):
    """Not now, but soon: the client should try again."""

    status_code, type = 503, "server_error"
    headers = {"Retry-After": "5"}


def error_body(
    message: str,
    type: str,  # noqa: A002 - the wire's word
    *,
    param: str | None = None,
    code: str | None = None,
    troubleshooting: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of every error: `detail` for plain HTTP clients, `error` for OpenAI's."""
    body: dict[str, Any] = {
        "detail": message,
        "error": {"message": message, "type": type, "param": param, "code": code},
    }
    if troubleshooting:
        body["troubleshooting"] = dict(troubleshooting)
    return body
