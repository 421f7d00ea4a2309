"""A new fine-tune is on every running engine of its base, or on none."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest

from app.catalog.resolve import AdapterRef
from app.catalog.spec import ModelSpec
from app.devices.inventory import declared
from app.engines.adapters import AdapterRefused
from app.engines.engine import Engine, State
from app.engines.own_model import model_of
from app.engines.pool import EnginePool
from app.engines.trial import ChangesNothing, NoAnswer, NoNumbers, try_everywhere
from app.files.storage import Storage
from app.store.session import Store
from app.store.tables import Adapter, Checkpoint
from app.upkeep.adapters import reconcile_adapters
from tests.engines.running import simulating, write_adapter
from tests.eventually import eventually
from tests.rows import make_job, make_org, target

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def two_replicas(
    folder: Path, store: Store, *, second: ModelSpec | None = None, **changes: Any
) -> AsyncIterator[tuple[EnginePool, list[Engine]]]:
    """`second`: what the other replica is started as, instead of the model."""
    wanted = target()
    pool = EnginePool(simulating(folder, **changes), store, Storage(folder), declared(["CPU:2"]))
    try:
        for model in (wanted.model, second or wanted.model):
            engine = await pool._fleet.add(model, wanted.gpu)
            assert engine
            await engine.ensure_ready(within_seconds=20)
        yield pool, pool.engines
    finally:
        await pool.drain(grace_seconds=0.1)


async def loaded(engines: list[Engine]) -> list[set[str]]:
    return [await engine.client.loaded_adapters() for engine in engines]


async def publish(store: Store, adapter: AdapterRef, **changes: Any) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        job = await make_job(session, org, id=adapter.job_id, **changes)
        row = Adapter(id=adapter.id, org_id=org.id, job_id=job.id, name=f"ft:{job.id}", base_model=job.base_model)
        session.add(row)


async def delete(store: Store, adapter: AdapterRef) -> None:
    async with store.begin() as session:
        (await session.get_one(Adapter, adapter.id)).deleted_at = 1.0


async def test_a_trial_loads_the_adapter_on_every_replica(tmp_path: Path, store: Store) -> None:
    adapter = write_adapter(Storage(tmp_path))
    async with two_replicas(tmp_path, store) as (pool, engines):
        await try_everywhere(pool, target(adapter=adapter), org_id="org_1")
        assert await loaded(engines) == [{adapter.id}, {adapter.id}]
        assert not any(engine.in_flight for engine in engines)


async def test_where_one_replica_refuses_none_keeps_it(tmp_path: Path, store: Store) -> None:
    adapter = write_adapter(Storage(tmp_path), rank=16)
    strict = target().model.model_copy(update={"max_lora_rank": 8})
    async with two_replicas(tmp_path, store, second=strict) as (pool, engines):
        with pytest.raises(AdapterRefused):
            await try_everywhere(pool, target(adapter=adapter), org_id="org_1")
        assert await loaded(engines) == [set(), set()]


async def test_an_adapter_that_fails_its_canary_is_nowhere_afterwards(tmp_path: Path, store: Store) -> None:
    adapter = write_adapter(Storage(tmp_path))
    async with two_replicas(tmp_path, store, simulate_faults=["error"]) as (pool, engines):
        with pytest.raises(NoAnswer):
            await try_everywhere(pool, target(adapter=adapter), org_id="org_1")
        assert await loaded(engines) == [set(), set()]


async def test_an_adapter_that_changes_nothing_is_nowhere_afterwards(tmp_path: Path, store: Store) -> None:
    adapter = write_adapter(Storage(tmp_path), weight=0.0)
    async with two_replicas(tmp_path, store) as (pool, engines):
        with pytest.raises(ChangesNothing):
            await try_everywhere(pool, target(adapter=adapter), org_id="org_1")
        assert await loaded(engines) == [set(), set()]


async def test_an_engine_that_computed_no_numbers_is_ended_and_starts_anew(tmp_path: Path, store: Store) -> None:
    adapter = write_adapter(Storage(tmp_path), weight=nan)
    async with two_replicas(tmp_path, store) as (pool, engines):
        with pytest.raises(NoNumbers):
            await try_everywhere(pool, target(adapter=adapter), org_id="org_1")
        assert sorted(engine.state for engine in engines) == [State.READY, State.STOPPED]
        for engine in engines:
            await engine.ensure_ready(within_seconds=20)
        assert await loaded(engines) == [set(), set()]


async def test_published_adapters_come_to_every_engine_and_deleted_ones_go(tmp_path: Path, store: Store) -> None:
    first, second = [write_adapter(Storage(tmp_path)) for _ in range(2)]
    async with two_replicas(tmp_path, store) as (pool, engines):
        for adapter in (first, second):
            await publish(store, adapter)
        await reconcile_adapters(store, pool, slots=8)
        assert await loaded(engines) == 2 * [{first.id, second.id}]
        async with engines[0].adapters.held(first, within_seconds=10):
            await delete(store, first)
            await reconcile_adapters(store, pool, slots=8)
            assert await loaded(engines) == [{first.id, second.id}, {second.id}]  # what runs goes on to its end
        await reconcile_adapters(store, pool, slots=8)
        assert await loaded(engines) == 2 * [{second.id}]


async def test_everything_is_back_after_a_crash_but_what_is_on_trial_is_left_alone(
    tmp_path: Path, store: Store
) -> None:
    published, trial = [write_adapter(Storage(tmp_path)) for _ in range(2)]
    async with two_replicas(tmp_path, store) as (pool, engines):
        await publish(store, published)
        async with engines[0].adapters.held(trial, within_seconds=10):
            pass
        await reconcile_adapters(store, pool, slots=8)
        assert await loaded(engines) == [{published.id, trial.id}, {published.id}]
        assert engines[0].pid
        os.kill(engines[0].pid, signal.SIGKILL)
        await eventually(lambda: not engines[0].is_ready)
        await reconcile_adapters(store, pool, slots=8)  # goes on with the other
        await engines[0].ensure_ready(within_seconds=20)
        await reconcile_adapters(store, pool, slots=8)
        assert await loaded(engines) == 2 * [{published.id}]


async def test_checkpoints_go_with_their_model(tmp_path: Path, store: Store) -> None:
    adapter = write_adapter(Storage(tmp_path))
    folder = Storage(tmp_path).adapter(adapter.job_id, "checkpoints/step-3")
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    checkpoint = AdapterRef("ftckpt_1", adapter.job_id, "checkpoints/step-3")
    async with two_replicas(tmp_path, store) as (pool, engines):
        await publish(store, adapter)
        async with store.begin() as session:
            session.add(Checkpoint(id=checkpoint.id, job_id=adapter.job_id, step=3, metrics={}))
        async with engines[0].adapters.held(checkpoint, within_seconds=10):
            pass
        await reconcile_adapters(store, pool, slots=8)
        assert checkpoint.id in (await loaded(engines))[0]
        await delete(store, adapter)
        await reconcile_adapters(store, pool, slots=8)
        assert await loaded(engines) == [set(), set()]


async def test_a_full_fine_tune_is_no_adapter_and_its_engine_stops_once_it_is_deleted(
    tmp_path: Path, store: Store
) -> None:
    storage = Storage(tmp_path)
    tuned = write_adapter(storage)
    own = model_of(storage, target().model, replace(tuned, own_name=f"ft:{tuned.job_id}:ckpt-step-3"))
    async with two_replicas(tmp_path, store, second=own) as (pool, [base, its_own]):
        await publish(store, tuned, training_type="full")
        await reconcile_adapters(store, pool, slots=8)
        assert await loaded([base]) == [set()]
        await delete(store, tuned)
        its_own.in_flight += 1
        await reconcile_adapters(store, pool, slots=8)
        assert pool.engines == [base, its_own]  # what runs goes on to its end
        its_own.in_flight -= 1
        await reconcile_adapters(store, pool, slots=8)
        assert pool.engines == [base]


async def test_adapters_come_a_few_at_a_time(tmp_path: Path, store: Store) -> None:
    adapters = [write_adapter(Storage(tmp_path)) for _ in range(9)]
    async with two_replicas(tmp_path, store, max_loras=1, max_cpu_loras=6) as (pool, engines):
        for adapter in adapters:
            await publish(store, adapter)
        counts = []
        for _ in range(3):
            await reconcile_adapters(store, pool, slots=6)
            counts.append(len(await engines[0].client.loaded_adapters()))
        assert counts == [4, 6, 6]
        await asyncio.gather(*(reconcile_adapters(store, pool, slots=6) for _ in range(3)))
        assert len(await engines[0].client.loaded_adapters()) == 6
