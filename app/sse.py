"""Server-sent events, as openai's clients read them."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = b": keep-alive\n"
DONE = b"data: [DONE]\n\n"


def encode(data: Mapping[str, Any], *, event: str | None = None) -> bytes:
    """One event; the JSON is one line."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(data) + b"\n\n"


def wants_stream(request: Request) -> bool:
    """By `?stream=true` or an `Accept` header that asks for nothing else."""
    return is_asked_in_query(request) or MEDIA_TYPE in request.headers.get("accept", "")


def is_asked_in_query(request: Request) -> bool:
    return request.query_params.get("stream", "").lower() in ("true", "1")
