"""Who may ask what of which engine: funds, model and GPU, settled before anything slow."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from cachetools import TTLCache
from starlette.requests import Request

from app import sse
from app.billing.funds import Funds
from app.catalog.resolve import Target, choose_gpu, resolve
from app.catalog.spec import Catalog
from app.devices.inventory import Device, as_choices, for_engines
from app.errors import BadRequest
from app.inference.bounds import walk
from app.inference.relay import Relay
from app.settings import Settings
from app.store.session import Store

MAX_DEPTH = 100  # what writes a body again goes no deeper than 254
MAX_KNOWN = 10_000


class Admissions:
    """Decides on requests. What a name resolved to is good for a few seconds, as a key is."""

    def __init__(
        self, settings: Settings, catalog: Catalog, devices: Sequence[Device], store: Store, funds: Funds
    ) -> None:
        self._catalog = catalog
        self._present = as_choices(for_engines(devices))
        self._gpu_fallback = settings.gpu_fallback
        self._store = store
        self._funds = funds
        self._known: TTLCache[tuple[str, str, str | None], Target] = TTLCache(MAX_KNOWN, settings.key_cache_seconds)

    async def admit(self, org_id: str, model: str, gpu: str | None) -> Target:
        """Raises InsufficientFunds, UnknownModel, WrongGpu."""
        key = (org_id, model, gpu)
        target = self._known.get(key)
        if target is None:
            target = self._known[key] = await self._resolve(org_id, model, gpu)
        await self._funds.require(org_id)
        return target

    def forget(self) -> None:
        """A model has been deleted."""
        self._known.clear()

    async def _resolve(self, org_id: str, model: str, gpu: str | None) -> Target:
        async with self._store.read() as session:
            spec, adapter = await resolve(session, self._catalog, org_id, model)
        return Target(spec, adapter, choose_gpu(spec, gpu, self._present, fallback=self._gpu_fallback))


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
    if request.scope["query_string"] and sse.is_asked_in_query(request):
        body["stream"] = True
    return body


async def admit(request: Request, org_id: str, model: str, gpu: str | None) -> Target:
    """Raises as `Admissions.admit` does."""
    admissions: Admissions = request.app.state.admissions
    return await admissions.admit(org_id, model, gpu)


def wanted_gpu(request: Request, body: Mapping[str, Any]) -> str | None:
    """The four ways of asking for a GPU, most telling first."""
    asked = body.get("gpu_preference") or _in_headers(request)
    if not asked and request.scope["query_string"]:
        asked = request.query_params.get("gpu")
    if not asked and "extra_headers" in body:
        asked = _in_literal_headers(body["extra_headers"])
    return str(asked) if asked else None


def _in_headers(request: Request) -> str | None:
    for name, value in request.scope["headers"]:
        if name == b"x-gpu-preference":
            return str(value, "latin-1")
    return None


def _in_literal_headers(literal: Any) -> Any:
    inner = {str(name).lower(): value for name, value in literal.items()} if isinstance(literal, Mapping) else {}
    return inner.get("x-gpu-preference")


def relay_for(request: Request, target: Target, org_id: str) -> Relay:
    state = request.app.state
    return Relay(state.settings, state.pool, state.charges, target, org_id, request.state.request_id)
