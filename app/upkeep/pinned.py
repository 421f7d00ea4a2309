"""Models that the catalog pins: their engines start with the server, and again whenever they have ended."""

import asyncio

import structlog

from app.catalog.resolve import Target, choose_gpu
from app.catalog.spec import Catalog, ModelSpec
from app.devices.inventory import as_choices
from app.engines.pool import EnginePool
from app.errors import APIError

log = structlog.get_logger()


async def start_pinned(catalog: Catalog, pool: EnginePool) -> None:
    """Returns when each is ready or has failed."""
    cold = [model for model in catalog.models if model.pinned and not any(e.is_ready for e in pool.find(model.id))]
    await asyncio.gather(*(_start(model, pool) for model in cold))


async def _start(model: ModelSpec, pool: EnginePool) -> None:
    try:
        gpu = choose_gpu(model, None, as_choices(pool.devices), fallback=False)
        async with pool.lease(Target(model, None, gpu)):
            log.info("pinned model is ready", model=model.id, gpu=str(gpu))
    except APIError as error:
        log.warning("a pinned model cannot start; trying again", model=model.id, error=error.message)
