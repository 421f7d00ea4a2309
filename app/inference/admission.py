"""Who may ask what of which engine: funds, model and GPU, in one short transaction closed before anything slow."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

from app.billing.ledger import require_funds
from app.catalog.resolve import Target, choose_gpu, resolve
from app.devices.inventory import as_choices
from app.errors import APIError, BadRequest, TooLarge
from app.inference.relay import Relay


class UnsupportedEncoding(APIError):
    status_code, type = 415, "invalid_request_error"


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises TooLarge as soon as the limit is passed, and BadRequest."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedEncoding("Send the body without a Content-Encoding.")
    limit = request.app.state.settings.max_body_bytes
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise TooLarge(f"The body is larger than {limit} bytes.", headers={"Connection": "close"})
        pieces.append(piece)
    try:
        body = orjson.loads(b"".join(pieces))
    except orjson.JSONDecodeError as error:
        raise BadRequest("The body is not valid JSON.") from error
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body


async def admit(request: Request, org_id: str, model: str, gpu: str | None) -> Target:
    """Raises InsufficientFunds, UnknownModel, WrongGpu."""
    state = request.app.state
    async with state.store.read() as session:
        spec, adapter = await resolve(session, state.catalog, org_id, model)
        await require_funds(session, org_id)
    choice = choose_gpu(spec, gpu, as_choices(state.devices), fallback=state.settings.gpu_fallback)
    return Target(spec, adapter, choice)


def wanted_gpu(request: Request, body: Mapping[str, Any]) -> str | None:
    """The four ways of asking for a GPU, most telling first."""
    literal = body.get("extra_headers")
    inner = {str(k).lower(): v for k, v in literal.items()} if isinstance(literal, Mapping) else {}
    asked = (
        body.get("gpu_preference")
        or request.headers.get("x-gpu-preference")
        or request.query_params.get("gpu")
        or inner.get("x-gpu-preference")
    )
    return str(asked) if asked else None


def relay_for(request: Request, target: Target, org_id: str) -> Relay:
    state = request.app.state
    return Relay(state.settings, state.pool, state.charges, target, org_id, request.state.request_id)
