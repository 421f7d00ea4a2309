"""Who may ask what of which engine: funds, model and GPU, in one short transaction closed before anything slow."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

from app import sse
from app.billing.ledger import require_funds
from app.catalog.resolve import Target, choose_gpu, resolve
from app.devices.inventory import as_choices
from app.errors import BadRequest
from app.inference.bounds import walk
from app.inference.relay import Relay

MAX_DEPTH = 100  # what writes a body again goes no deeper than 254


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object; `?stream=true` is a field of it too. Raises BadRequest."""
    raw = await request.body()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest("The body is not valid JSON.") from error
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    # Few bodies have brackets enough to be worth the walk.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and any(depth > MAX_DEPTH for _, depth in walk(body)):
        raise BadRequest(f"The body is nested more than {MAX_DEPTH} deep.")
    if sse.is_asked_in_query(request):
        body["stream"] = True
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
