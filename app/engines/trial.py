"""The trial of a new fine-tune: every running engine of its base loads it and answers through it, or none keeps it."""

import structlog

from app.catalog.resolve import Target
from app.engines.engine import Engine
from app.engines.pool import EnginePool
from app.errors import APIError, Unavailable

log = structlog.get_logger()

CANARY_SECONDS = 120.0


class NoAnswer(Unavailable):
    code = "canary_failed"


async def try_everywhere(pool: EnginePool, target: Target, *, org_id: str) -> None:
    """On one engine at least. Raises NoAnswer, and as `EnginePool.lease` does; the adapter is loaded nowhere then."""
    try:
        async with pool.lease(target, org_id=org_id) as first:
            await _ask(first, target)
            for engine in pool.find(target.model.id):
                if engine is not first and engine.is_ready:
                    async with pool.lease_of(engine, target):
                        await _ask(engine, target)
    except APIError:
        await _roll_back(pool, target)
        raise


async def _ask(engine: Engine, target: Target) -> None:
    if not await engine.client.answers(target.engine_name, within_seconds=CANARY_SECONDS):
        raise NoAnswer("The fine-tuned model did not answer its first prompt.")


async def _roll_back(pool: EnginePool, target: Target) -> None:
    for engine in pool.find(target.model.id):
        if engine.is_ready and engine.has_adapter(target.engine_name):
            log.info("adapter taken back", engine=engine.id, adapter=target.engine_name)
            await engine.adapters.unload([target.engine_name])
