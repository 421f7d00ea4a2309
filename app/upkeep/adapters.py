"""Adapters: wanted are those that are published, in the store; loaded are those that an engine says it has."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import structlog

from app.catalog.adapters import deleted_among, deleted_models_among, newest_published
from app.catalog.resolve import AdapterRef
from app.engines.engine import Engine
from app.engines.pool import EnginePool
from app.errors import Unavailable
from app.store.session import Store

log = structlog.get_logger()

# Loads hold up an engine's other work: few in each round. What is asked for meanwhile is loaded at once.
PRELOADS = 4


async def reconcile_adapters(store: Store, pool: EnginePool, *, slots: int) -> None:
    """Every engine loses those of deleted models, and gets the newest published ones while it has slots free."""
    await _stop_deleted(store, pool)
    engines = [engine for engine in pool.engines if engine.is_ready and engine.model.trainable]
    loaded = dict(zip(engines, await asyncio.gather(*(_loaded(engine) for engine in engines)), strict=True))
    async with store.read() as session:
        gone = await deleted_among(session, {name for names in loaded.values() for name in names})
        models = {engine.model.id for engine in engines}
        wanted = {model: await newest_published(session, model, limit=slots) for model in models}
    await asyncio.gather(*(_change(engine, names, gone, wanted) for engine, names in loaded.items()))


async def _stop_deleted(store: Store, pool: EnginePool) -> None:
    """Engines of deleted full fine-tunes; nobody can ask them any more, but for what is under way."""
    own = [engine for engine in pool.engines if engine.model.id.startswith("ft:") and not engine.in_flight]
    if own:
        async with store.read() as session:
            gone = await deleted_models_among(session, {engine.model.id for engine in own})
        await pool.retire([engine for engine in own if engine.model.id in gone and not engine.in_flight])


async def _loaded(engine: Engine) -> list[str]:
    try:
        return await engine.adapters.reconcile()
    except (Unavailable, OSError) as error:
        log.warning("an engine does not tell its adapters", engine=engine.id, error=repr(error)[:300])
        return []


async def _change(
    engine: Engine, loaded: Sequence[str], gone: Collection[str], wanted: Mapping[str, Sequence[AdapterRef]]
) -> None:
    missing = [adapter for adapter in wanted[engine.model.id] if adapter.id not in loaded]
    try:
        await engine.adapters.unload([name for name in loaded if name in gone])
        for adapter in missing[:PRELOADS]:
            await engine.adapters.preload(adapter)
    except Unavailable as error:
        log.warning("an engine does not take an adapter", engine=engine.id, error=error.message)
