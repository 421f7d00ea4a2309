"""Who may ask what of which engine: funds, model and GPU, settled before anything slow."""

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.datastructures import State
from starlette.requests import HTTPConnection, Request

from app import sse
from app.billing.funds import Funds
from app.catalog.resolve import Target, choose_gpu, resolve
from app.catalog.spec import Catalog
from app.devices.inventory import Device, as_choices, for_engines
from app.engines.own_model import target_of
from app.errors import BadRequest
from app.files.storage import Storage
from app.inference.relay import Relay
from app.nesting import MAX_DEPTH, is_too_deep
from app.orgs.allowances import Allowance
from app.orgs.allowed_models import require_model
from app.orgs.keys import CurrentKey
from app.remembered import Remembered
from app.settings import Settings
from app.store.session import Store


class Admissions:
    """Decides on requests. What a name resolved to is good for a few seconds, as a key is."""

    def __init__(
        self, settings: Settings, catalog: Catalog, devices: Sequence[Device], store: Store, funds: Funds
    ) -> None:
        self._catalog = catalog
        self._present = as_choices(for_engines(devices))
        self._gpu_fallback = settings.gpu_fallback
        self._storage = Storage(settings.data_dir)
        self._store = store
        self._funds = funds
        self._known: Remembered[tuple[str, str, str | None], Target] = Remembered(settings.key_cache_seconds)

    async def admit(self, org_id: str, model: str, gpu: str | None) -> Target:
        """Raises InsufficientFunds, FundsHeld, UnknownModel, WrongGpu."""
        target = await self.look_up(org_id, model, gpu)
        await self._funds.require(org_id)
        return target

    async def look_up(self, org_id: str, model: str, gpu: str | None) -> Target:
        """Whether there are funds is for who holds some to find out. Raises UnknownModel, WrongGpu."""
        key = (org_id, model, gpu)
        target = self._known.find(key)
        if target is None:
            target = await self._resolve(org_id, model, gpu)
            self._known.add(key, target)
        return target

    def find_known(self, org_id: str, model: str, gpu: str | None) -> Target | None:
        """What `look_up` said a moment ago."""
        return self._known.find((org_id, model, gpu))

    def forget(self) -> None:
        """A model has been deleted."""
        self._known.forget()

    async def _resolve(self, org_id: str, model: str, gpu: str | None) -> Target:
        async with self._store.read() as session:
            spec, adapter = await resolve(session, self._catalog, org_id, model)
        choice = choose_gpu(spec, gpu, self._present, fallback=self._gpu_fallback)
        return target_of(self._storage, spec, adapter, choice)


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object; `?stream=true` is a field of it too. Raises BadRequest."""
    body = parse_json(await request.body())
    if request.scope["query_string"] and sse.is_asked_in_query(request):
        body["stream"] = True
    return body


def parse_json(raw: bytes) -> dict[str, Any]:
    """A JSON object. Raises BadRequest."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest("The body is not valid JSON.") from error
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    if is_too_deep(body, raw):
        raise BadRequest(f"The body is nested more than {MAX_DEPTH} deep.")
    return body


async def admit(request: HTTPConnection, org_id: str, model: str, gpu: str | None) -> Target:
    """Raises ModelNotAllowed, RateLimited, TooManyAtOnce, BudgetSpent, and as `Admissions.admit` does."""
    require_model(request.state.key, model)
    await _take_one(request)
    await request.app.state.budgets.require(request.state.key)
    admissions: Admissions = request.app.state.admissions
    return await admissions.admit(org_id, model, gpu)


async def _take_one(request: HTTPConnection) -> None:
    key: CurrentKey = request.state.key
    request.state.allowance = None  # of a turn before, on a socket
    if key.is_throttled:
        allowance: Allowance = await request.app.state.allowances.of(key)
        request.state.allowance = allowance
        try:
            allowance.require()
            allowance.take()
        finally:  # whoever is refused wants to know what is left all the more
            request.state.headers = allowance.headers()


def relay_of(request: HTTPConnection, target: Target, org_id: str, kind: type[Relay] = Relay) -> Relay:
    """For a request that was admitted."""
    relay = relay_for(request.app.state, target, org_id, request.state.request_id, kind)
    key: CurrentKey = request.state.key
    relay.key_id = key.key_id
    relay.allowance = request.state.allowance
    return relay


def relay_for(state: State, target: Target, org_id: str, request_id: str, kind: type[Relay] = Relay) -> Relay:
    """`state`: the application's."""
    cache_salt = state.seals.cache_salt(org_id)
    return kind(state.settings, state.pool, state.charges, target, org_id, request_id, cache_salt)
