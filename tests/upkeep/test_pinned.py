"""Pinned models are there without being asked for, and stay."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from app.catalog.resolve import Target
from app.devices.inventory import declared
from app.engines.pool import EnginePool
from app.engines.waiters import NoCapacity
from app.files.storage import Storage
from app.store.session import Store
from app.upkeep.pinned import start_pinned
from tests.engines.running import simulating
from tests.eventually import eventually
from tests.rows import CATALOG, target

pytestmark = pytest.mark.anyio

PINNED = CATALOG.models[0].model_copy(update={"pinned": True})
CATALOG_WITH_A_PIN = CATALOG.model_copy(update={"models": [PINNED, *CATALOG.models[1:]]})


async def test_a_pinned_model_starts_by_itself_stays_and_comes_back(tmp_path: Path, store: Store) -> None:
    settings = simulating(tmp_path, settle_seconds=0, engine_idle_seconds=0.01, cold_start_seconds=5)
    pool = EnginePool(settings, store, Storage(tmp_path), declared(["CPU:1"]))
    try:
        await start_pinned(CATALOG_WITH_A_PIN, pool)
        [engine] = pool.engines
        assert engine.is_ready
        await asyncio.sleep(0.02)
        await pool.look_after()
        assert pool.engines == [engine]
        with pytest.raises(NoCapacity):  # it is idle, and still nobody takes its place
            async with asyncio.timeout(10), pool.lease(target("b")):
                pass
        async with pool.lease(Target(PINNED, None, target().gpu)) as same:
            assert same is engine
            assert engine.pid
            os.kill(engine.pid, signal.SIGKILL)
            await eventually(lambda: not engine.is_ready)
        await start_pinned(CATALOG_WITH_A_PIN, pool)
        assert engine.is_ready
    finally:
        await pool.drain(grace_seconds=0.1)


async def test_a_pinned_model_that_cannot_start_stops_nobody(tmp_path: Path, store: Store) -> None:
    pool = EnginePool(simulating(tmp_path), store, Storage(tmp_path), declared([]))
    await start_pinned(CATALOG_WITH_A_PIN, pool)
    assert pool.engines == []
    await pool.drain(grace_seconds=0.1)
