"""create_app: resources, routers, error handlers; no rules."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from app.admin.own_router import router as own_keys
from app.admin.router import router as admin
from app.billing.budgets import Budgets
from app.billing.charges import Charges
from app.billing.funds import Funds
from app.billing.price_versions import keep_prices
from app.billing.router import router as billing
from app.billing.usage_router import router as usage
from app.body_limit import BodyLimit
from app.catalog.load import load_catalog
from app.compat.models import router as compat_models
from app.compat.money import router as compat_money
from app.compat.router import router as compat
from app.devices.inventory import find_devices
from app.draining import RefuseWhileDraining
from app.engines.pool import EnginePool
from app.engines.router import router as warmup
from app.engines.warmup import Warmups
from app.error_handlers import AnswerBugs, install_error_handlers
from app.files.router import router as files
from app.files.storage import Storage
from app.inference.admission import Admissions
from app.inference.chat import router as chat
from app.inference.chat_protocol import ChatProtocol
from app.inference.models import router as models
from app.inference.responses import router as responses
from app.inference.responses_background import Backgrounds
from app.inference.responses_socket import router as responses_socket
from app.inference.responses_upkeep import start_response_loops
from app.inference.seals import Seals
from app.inference.short_way import ShortWay
from app.jobs.adapter_router import router as adapters
from app.jobs.estimate_router import router as estimates
from app.jobs.follow import Followers
from app.jobs.preview import Previews
from app.jobs.preview_router import router as previews
from app.jobs.router import router as jobs
from app.orgs.allowances import SHARE_SECONDS, Allowances
from app.orgs.auth import RequireKey, RequireRole
from app.orgs.key_ring import TELL_SECONDS, KeyRing
from app.orgs.roles import ASKING, MODELS, OWN_KEYS, SERVER, WORK, Access
from app.request_id import RequestId
from app.settings import Settings
from app.store.migrate import migrate
from app.store.session import Store
from app.sweeps import all_sweeps
from app.upkeep.loops import HOLD_DEVICES, repeat, start_loops
from app.upkeep.publish import Publisher

# Who may do what: no route is included without it.
ROUTERS: tuple[tuple[APIRouter, Access], ...] = (
    (compat, WORK),  # before the rest: a model's id may be followed by a path of theirs
    (compat_models, MODELS),
    (compat_money, WORK),
    (chat, ASKING),
    (responses, ASKING),
    (responses_socket, ASKING),
    (files, WORK),
    (jobs, WORK),
    (adapters, WORK),
    (estimates, WORK),
    (previews, WORK),
    (models, MODELS),
    (warmup, ASKING),
    (billing, WORK),
    (usage, WORK),
    (own_keys, OWN_KEYS),
    (admin, SERVER),
)
PREFIX, ALIASES = "/api/v1", ("/api", "/v1")
CHAT_PREFIX = "/api/inference/v1"


class Health(BaseModel):
    status: Literal["ok"]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """What every answer other than 200 says."""

    detail: str
    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 402, 403, 404, 413, 429, 503)
}


def create_app(settings: Settings) -> FastAPI:
    """Raises WrongCatalog. Nothing is opened before the server starts."""
    catalog = load_catalog(settings.catalog)
    app = FastAPI(
        title="Loam",
        summary="Train, serve, meter: the agent-learning API on your own hardware.",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        strict_content_type=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.catalog = catalog
    app.state.catalog_loaded_at = time.time()
    app.state.devices = find_devices(settings, catalog)
    app.state.draining = False
    include_routers(app)
    app.add_middleware(RefuseWhileDraining)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequireKey)
    app.add_middleware(AnswerBugs)
    app.add_middleware(RequestId, simulated=settings.simulate)
    install_error_handlers(app)
    return app


def include_routers(app: FastAPI) -> None:
    """The documented routes, and the same handlers where other clients look for them."""
    for router, access in ROUTERS:
        include(app, router, access, PREFIX)
        for alias in ALIASES:
            include(app, router, access, alias, in_schema=False)
    include(app, chat, ASKING, CHAT_PREFIX, in_schema=False)
    health = APIRouter(tags=["health"])
    health.add_api_route("/health", get_health, response_model=Health)
    app.include_router(health, responses=ERRORS)
    app.include_router(health, prefix="/api", include_in_schema=False)


def include(app: FastAPI, router: APIRouter, access: Access, prefix: str, *, in_schema: bool = True) -> None:
    n_before = len(app.router.routes)
    documented = ERRORS if in_schema else None  # FastAPI builds a model of each, for the start to wait for
    app.include_router(router, prefix=prefix, include_in_schema=in_schema, responses=documented)
    for route in app.router.routes[n_before:]:
        assert isinstance(route, Route | WebSocketRoute)
        route.app = RequireRole(route.app, access)


def protocol_of(app: FastAPI) -> type[ChatProtocol]:
    """uvicorn's protocol for this application."""
    paths = frozenset(f"{prefix}/chat/completions" for prefix in (PREFIX, *ALIASES, CHAT_PREFIX))
    return type("Protocol", (ChatProtocol,), {"paths": paths, "state": app.state})


async def get_health() -> JSONResponse:
    """200 while new work is taken, 503 (as everywhere) once the server is shutting down. Needs no key."""
    return JSONResponse({"status": "ok"})


async def cancel(loops: list[asyncio.Task[None]]) -> None:
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    settings: Settings = state.settings
    storage = state.storage = Storage(settings.data_dir)
    store = state.store = Store(settings.store_url)
    await migrate(store)
    state.seals = await Seals.load(store)
    key_ring = state.key_ring = KeyRing(
        store, cache_seconds=settings.key_cache_seconds, usual_at_once=settings.max_requests_at_once
    )
    allowances = state.allowances = Allowances(store)
    funds = Funds(store, lease_seconds=settings.lease_seconds)
    async with store.begin() as session:
        price_version = await keep_prices(session, state.catalog)
    budgets = state.budgets = Budgets(store, cache_seconds=settings.key_cache_seconds)
    charges = state.charges = Charges(store, funds, price_version=price_version, budgets=budgets)
    state.admissions = Admissions(settings, state.catalog, state.devices, store, funds)
    pool = state.pool = EnginePool(settings, store, storage, state.devices)
    await pool.sweep()
    state.warmups = Warmups(pool, charges, state.catalog, cold_start_seconds=settings.cold_start_seconds)
    state.short_way = ShortWay(state)
    state.previews = Previews(settings.preview_seconds)
    state.backgrounds = Backgrounds(settings, store)
    state.followers = Followers(
        store, poll_seconds=settings.poll_seconds, keep_alive_seconds=settings.keep_alive_seconds
    )
    publisher = Publisher(settings, store, storage, state.catalog, pool)
    sweeps = all_sweeps(settings, store, storage)
    state.loops = start_loops(settings, store, state.catalog, pool, publisher, sweeps)
    response_loops = start_response_loops(settings, state.backgrounds)
    response_loops.append(asyncio.create_task(repeat("share limits", allowances.share, SHARE_SECONDS)))
    response_loops.append(asyncio.create_task(repeat("keep up with keys", key_ring.keep_up, settings.poll_seconds)))
    response_loops.append(asyncio.create_task(repeat("tell of used keys", key_ring.tell_used, TELL_SECONDS)))
    funds_loop = asyncio.create_task(repeat("share funds", funds.step, settings.poll_seconds))
    following = asyncio.create_task(state.followers.run())
    try:
        yield
    finally:
        await finish(app)
        await cancel([*response_loops, following])
        await pool.drain(grace_seconds=settings.shutdown_grace_seconds)
        await cancel(state.loops)
        await charges.settle()
        await cancel([funds_loop])
        with suppress(SQLAlchemyError, OSError):  # a lease that nobody gives back runs out
            await funds.close()
            await key_ring.tell_used()
        await store.close()


async def finish(app: FastAPI) -> None:
    """Begin nothing new, and let what runs end within the grace. Harmless when it is done already."""
    state = app.state
    state.draining = True
    # Streams that run until the end of the grace need their devices until then.
    await cancel([loop for loop in state.loops if loop.get_name() != HOLD_DEVICES])
    await state.warmups.close()
    grace_seconds = state.settings.shutdown_grace_seconds
    await asyncio.gather(
        state.backgrounds.close(grace_seconds=grace_seconds), state.pool.finish(grace_seconds=grace_seconds)
    )
