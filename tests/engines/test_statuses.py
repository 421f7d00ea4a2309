"""What is told of engines to whoever looks from outside."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pytest
from sqlalchemy import update

from app.devices.inventory import declared
from app.engines.engine import State
from app.engines.orphans import ProcessRecord
from app.engines.pool import EnginePool
from app.engines.statuses import Statuses, list_statuses
from app.files.storage import Storage
from app.store.session import Store
from app.store.tables import EngineStatus
from tests.engines.running import processes_of, simulating, write_adapter
from tests.eventually import eventually
from tests.rows import target

pytestmark = pytest.mark.anyio


async def statuses(store: Store) -> list[EngineStatus]:
    async with store.read() as session:
        return await list_statuses(session)


async def test_what_runs_is_told_as_it_is_and_forgotten_when_it_has_stopped(tmp_path: Path, store: Store) -> None:
    pool = EnginePool(simulating(tmp_path), store, Storage(tmp_path), declared(["CPU:2"]))
    telling = Statuses(store, lambda: pool.present)
    adapter = write_adapter(Storage(tmp_path))
    async with pool.lease(target(adapter=adapter)) as engine:
        await telling.write(seconds=60)
        await engine.client.answers(adapter.id, within_seconds=10)
        await telling.write(seconds=60)
        [told] = await statuses(store)
    assert (told.id, told.model, told.gpu, told.state) == (engine.id, "test/a", "CPU", "ready")
    assert (told.in_flight, told.adapters) == (1, [adapter.id])
    assert told.tokens_per_second > 0
    assert told.memory_bytes > 1 << 20
    await pool.drain(grace_seconds=0.1)
    assert await statuses(store) == []


async def test_an_engine_is_told_of_until_it_has_stopped(tmp_path: Path, store: Store) -> None:
    settings = simulating(tmp_path, simulate_faults=["ignore_sigterm"], engine_stop_seconds=0.5)
    pool = EnginePool(settings, store, Storage(tmp_path), declared(["CPU:1"]))
    async with pool.lease(target()) as engine:
        pass
    draining = asyncio.create_task(pool.drain(grace_seconds=0.1))
    await eventually(lambda: engine.state is State.STOPPING)
    await Statuses(store, lambda: pool.present).write(seconds=60)
    assert [told.state for told in await statuses(store)] == ["stopping"]
    await draining
    assert await statuses(store) == []


async def test_those_of_a_killed_gateway_are_forgotten_when_the_next_one_starts(tmp_path: Path, store: Store) -> None:
    pool = EnginePool(simulating(tmp_path), store, Storage(tmp_path), declared(["CPU:1"]))
    async with pool.lease(target()) as engine:
        await Statuses(store, lambda: pool.present).write(seconds=60)
    record = engine.socket.with_suffix(".json")
    ours = ProcessRecord(**orjson.loads(record.read_bytes()))
    replace(ours, gateway_started_at=1.0).write(record)
    await pool.sweep()
    assert (await statuses(store), processes_of(tmp_path)) == ([], [])
    await pool.drain(grace_seconds=0.1)


async def test_an_engine_that_cannot_answer_is_told_all_the_same(tmp_path: Path, store: Store) -> None:
    pool = EnginePool(simulating(tmp_path), store, Storage(tmp_path), declared(["CPU:1"]))
    async with pool.lease(target()) as engine:
        await engine.stop()
        await Statuses(store, lambda: pool.present).write(seconds=60)
        [told] = await statuses(store)
        assert (told.state, told.tokens_per_second, told.memory_bytes, told.adapters) == ("stopped", 0.0, 0, [])
    await pool.drain(grace_seconds=0.1)


async def test_several_gateways_tell_of_theirs_and_a_dead_ones_are_forgotten(tmp_path: Path, store: Store) -> None:
    pools = [EnginePool(simulating(tmp_path), store, Storage(tmp_path), declared(["CPU:2"])) for _ in range(2)]
    for pool in pools:
        async with pool.lease(target()):
            await Statuses(store, partial(list, pool.present)).write(seconds=60)
    assert {told.id for told in await statuses(store)} == {pool.engines[0].id for pool in pools}
    async with store.begin() as session:
        dead = update(EngineStatus).where(EngineStatus.id == pools[0].engines[0].id)
        await session.execute(dead.values(expires_at=0.0))
    assert [told.id for told in await statuses(store)] == [pools[1].engines[0].id]
    for pool in pools:
        await pool.drain(grace_seconds=0.1)
