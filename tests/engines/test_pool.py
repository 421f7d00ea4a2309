"""The pool: who gets an engine, who waits, who must go, and what is left at the end."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import update

from app.catalog.spec import GpuChoice
from app.devices import leases
from app.devices.inventory import declared
from app.draining import Draining
from app.engines.engine import State
from app.engines.failures import StartFailed
from app.engines.memory import DoesNotFit
from app.engines.pool import EnginePool
from app.engines.waiters import NoCapacity, QueueFull
from app.errors import Unavailable
from app.files.storage import Storage
from app.store.session import Store
from app.store.tables import DeviceLease
from app.upkeep.loops import repeat
from tests.engines.pools import (
    A_LITTLE,
    LOOK_SECONDS,
    hold,
    holders,
    names,
    no_wishes,
    pool_on,
    stays_waiting,
    use,
    wish,
    withdraw,
)
from tests.engines.running import processes_of, simulating, write_adapter
from tests.eventually import eventually
from tests.rows import target
from tests.stores import SqliteStores

pytestmark = pytest.mark.anyio

CPU = GpuChoice("CPU", 1)


@pytest.fixture
async def store(sqlite_stores: SqliteStores) -> AsyncIterator[Store]:
    """On one database: what differs between the two is tested with the leases."""
    store = Store(sqlite_stores.new_url())
    yield store
    await store.close()


async def test_leases_of_one_target_share_an_engine(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        engines = await asyncio.gather(*(use(pool, target()) for _ in range(6)))
        assert len(set(map(id, engines))) == len(processes_of(tmp_path)) == engines[0].starts == 1
        assert engines[0].in_flight == 0
        assert await holders(store) == [engines[0].id]


async def test_the_engine_that_was_used_longest_ago_gives_way(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        for model in "aba":
            await use(pool, target(model))
        await use(pool, target("c"))
        assert names(pool) == {"a", "c"}
        assert len(processes_of(tmp_path)) == 2
        assert sorted(await holders(store)) == sorted(engine.id for engine in pool.engines)


async def test_a_busy_engine_is_never_evicted_and_who_waits_is_served_when_it_is_free(
    tmp_path: Path, store: Store
) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:1"]) as pool:
        async with pool.lease(target("a")) as busy:
            waiting = asyncio.create_task(use(pool, target("b")))
            assert await stays_waiting(waiting)
            assert busy.is_ready
        assert (await waiting).model.id == "test/b"
        assert names(pool) == {"b"}


async def test_an_idle_engine_that_is_leased_while_it_is_to_be_evicted_stays(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:1"]) as pool:
        await use(pool, target("a"))
        waiting = asyncio.create_task(use(pool, target("b")))
        await asyncio.sleep(0)  # it has begun to look for a place
        async with pool.lease(target("a")) as busy:
            assert await stays_waiting(waiting)
            assert busy.is_ready
        await waiting


async def test_an_idle_engine_gives_way_to_a_job_and_comes_back_when_the_job_is_over(
    tmp_path: Path, store: Store
) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:1", "A100:1"]) as pool:
        await use(pool, target("a"))
        await use(pool, target("a", gpu="A100"))
        await wish(store, "CPU")
        await eventually(lambda: len(pool.engines) == 1)
        waiting = asyncio.create_task(use(pool, target("b")))
        assert await stays_waiting(waiting)  # the device is the job's, though it has not taken it yet
        await withdraw(store)
        await waiting
        assert {str(engine.key.gpu) for engine in pool.engines} == {"CPU", "A100"}


async def test_a_busy_engine_drains_for_a_job_that_has_waited_and_nothing_new_is_placed_on_it(
    tmp_path: Path, store: Store
) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:1"], drain_after_seconds=0.2) as pool:
        released = asyncio.Event()
        running = asyncio.create_task(hold(pool, target("a"), released))
        await eventually(lambda: pool.engines and pool.engines[0].is_ready)
        await wish(store, "CPU", since_seconds=1.0)
        await eventually(lambda: pool._placer.giving_way)
        late = asyncio.create_task(use(pool, target("a")))
        assert await stays_waiting(late)
        assert pool.engines[0].is_ready  # what runs goes on to its end
        released.set()
        await running
        await eventually(lambda: not pool.engines)
        await withdraw(store)
        await late


async def test_no_more_engines_drain_than_a_job_needs_and_they_go_on_when_it_is_gone(
    tmp_path: Path, store: Store
) -> None:
    options: Any = {"devices": ["CPU:2"], "drain_after_seconds": 0.0}
    async with pool_on(store, tmp_path, **options) as pool, pool.lease(target("a")), pool.lease(target("b")):
        await wish(store, "CPU")
        assert len(await eventually(lambda: pool._placer.giving_way)) == 1
        await withdraw(store)
        await eventually(lambda: not pool._placer.giving_way)
        await asyncio.gather(use(pool, target("a")), use(pool, target("b")))


async def test_a_model_that_is_never_idle_does_not_starve_another(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:1"], drain_after_seconds=0.3) as pool:
        greedy = [asyncio.create_task(repeat("use", lambda: use(pool, target("a")), 0.0)) for _ in range(3)]
        await eventually(lambda: pool.engines and pool.engines[0].is_ready)
        await asyncio.wait_for(use(pool, target("b")), 10)
        await asyncio.wait_for(use(pool, target("a")), 10)
        for task in greedy:
            task.cancel()
        await asyncio.wait(greedy)


async def test_organisations_take_turns_when_there_is_a_queue(tmp_path: Path, store: Store) -> None:
    order: list[str] = []

    async def ask(org_id: str, model: str) -> None:
        async with pool.lease(target(model), org_id=org_id):
            order.append(org_id)

    async with pool_on(store, tmp_path, devices=["CPU:1"]) as pool:
        async with pool.lease(target("a")):
            many = [asyncio.create_task(ask("org_1", model)) for model in "bcbc"]
            await asyncio.sleep(0)
            one = asyncio.create_task(ask("org_2", "c"))
            assert await stays_waiting(one)
        await asyncio.gather(*many, one)
    assert order.index("org_2") < 3


async def test_a_queue_that_is_full_is_told_at_once_and_who_leaves_makes_room(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:1"], max_waiting=2) as pool:
        async with pool.lease(target("a")):
            waiting = [asyncio.create_task(use(pool, target(model))) for model in "bc"]
            assert await stays_waiting(waiting[0])
            with pytest.raises(QueueFull) as refused:
                await use(pool, target("b"))
            assert (refused.value.status_code, refused.value.code) == (429, "queue_full")
            assert int(refused.value.headers["Retry-After"]) > 0
            await use(pool, target("a"))  # who need not wait is not refused
            waiting[0].cancel()
            await asyncio.wait([waiting[0]])
            late = asyncio.create_task(use(pool, target("b")))
            assert await stays_waiting(late)
        await asyncio.gather(waiting[1], late)


async def test_who_leaves_in_the_moment_it_is_placed_keeps_nobody_busy(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:1"]) as pool:
        await use(pool, target("a"))
        waiting = [asyncio.create_task(use(pool, target(model))) for model in "bcbcbc"]
        await eventually(lambda: pool.find("test/b") or pool.find("test/c"))
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert not any(engine.in_flight for engine in pool.engines)
        await asyncio.wait_for(use(pool, target("a")), 10)


async def test_a_crowded_engine_gets_a_replica_where_a_device_is_free(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:2"], replica_in_flight=2, engine_idle_seconds=0.2) as pool:
        released = asyncio.Event()
        holding = [asyncio.create_task(hold(pool, target("a"), released)) for _ in range(2)]
        await eventually(lambda: [e.is_ready for e in pool.engines] == [True, True])
        holding += [asyncio.create_task(hold(pool, target("a"), released)) for _ in range(2)]
        await eventually(lambda: sorted(e.in_flight for e in pool.engines) == [2, 2])
        released.set()
        await asyncio.gather(*holding)
        await anyio.sleep(0.2)
        await pool.look_after()
        assert (names(pool), await holders(store)) == (set(), [])


@pytest.mark.parametrize("ends", ["crashes", "sleeps"])
async def test_a_replica_that_has_gone_to_rest_is_up_again_when_the_others_are_crowded(
    tmp_path: Path, store: Store, ends: str
) -> None:
    options: Any = {"devices": ["A100:2"], "replica_in_flight": 1, "sleep_mode": True}
    async with pool_on(store, tmp_path, **options) as pool:
        released, wanted = asyncio.Event(), target(gpu="A100")
        holding = asyncio.create_task(hold(pool, wanted, released))
        await eventually(lambda: [e.is_ready for e in pool.engines] == [True, True])
        spare = pool.engines[1]
        released.set()
        await holding
        if ends == "crashes":
            assert spare.pid
            os.kill(spare.pid, signal.SIGKILL)
            await eventually(lambda: spare.state is State.STOPPED)
        else:
            spare.fall_asleep()
        async with pool.lease(wanted) as busy:
            assert busy is not spare
            await eventually(lambda: spare.is_ready)
        assert len(pool.engines) == 2


async def test_a_replica_takes_nothing_from_others(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:2"], replica_in_flight=1) as pool:
        await use(pool, target("b"))
        async with pool.lease(target("a")), pool.lease(target("a")):
            await anyio.sleep(4 * LOOK_SECONDS)
            assert names(pool) == {"a", "b"}


async def test_a_device_that_a_job_holds_is_waited_for_within_the_budget(tmp_path: Path, store: Store) -> None:
    async with store.begin() as session:
        assert await leases.acquire(session, declared(["CPU:1"]), CPU, "ftjob-1", seconds=60)
    async with pool_on(store, tmp_path, devices=["CPU:1"], cold_start_seconds=A_LITTLE) as pool:
        with pytest.raises(NoCapacity) as refused:
            await use(pool, target())
        assert refused.value.headers["Retry-After"]
    async with pool_on(store, tmp_path, devices=["CPU:1"]) as pool:
        waiting = asyncio.create_task(use(pool, target()))
        assert await stays_waiting(waiting)
        async with store.begin() as session:
            await leases.release(session, "ftjob-1")
        await waiting


async def test_more_devices_than_there_are_is_refused_at_once(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        with pytest.raises(NoCapacity, match="CPU:3 is more than the 2"):
            await use(pool, target(gpu="CPU:3"))


async def test_a_model_that_cannot_fit_is_refused_and_not_tried(tmp_path: Path, store: Store) -> None:
    small = [replace(device, memory_bytes=1 << 30) for device in declared(["A100:1"])]
    pool = EnginePool(simulating(tmp_path), store, Storage(tmp_path), small)
    with pytest.raises(DoesNotFit, match=r"1\.86 GiB for its weights.* A100 has 0\.9 GiB"):
        await use(pool, target(gpu="A100"))
    assert (pool.engines, await holders(store)) == ([], [])
    await pool.drain(grace_seconds=0.1)


async def test_who_waits_for_its_own_gateways_engine_wishes_for_nothing(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, devices=["CPU:1"]) as pool, pool.lease(target("a")):
        waiting = asyncio.create_task(use(pool, target("b")))
        assert await stays_waiting(waiting)
        assert await no_wishes(store)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_start_that_fails_is_told_to_who_waits_and_keeps_nobody_busy(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, simulate_faults=["start_fails"]) as pool:
        with pytest.raises(StartFailed):
            await use(pool, target())
        [engine] = pool.engines
        assert engine.in_flight == 0


async def test_who_leaves_in_the_cold_start_keeps_nobody_busy(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        waiting = asyncio.create_task(use(pool, target()))
        await eventually(lambda: pool.engines and pool.engines[0].state is State.STARTING)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert pool.engines[0].in_flight == 0
        await eventually(lambda: pool.engines[0].is_ready)


async def test_an_adapter_is_there_again_after_a_crash(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        wanted = target(adapter=write_adapter(Storage(tmp_path)))
        engine = await use(pool, wanted)
        assert engine.pid
        os.kill(engine.pid, signal.SIGKILL)
        await eventually(lambda: engine.state is State.STOPPED)
        assert await use(pool, wanted) is engine
        assert engine.starts == 2


async def test_an_engine_that_hangs_is_ended_and_starts_again(tmp_path: Path, store: Store) -> None:
    options: Any = {"stream_silence_seconds": 0.2, "engine_stop_seconds": 0.2}
    async with pool_on(store, tmp_path, **options) as pool:
        engine = await use(pool, target())
        async with pool.lease(target()):
            assert engine.pid
            os.kill(engine.pid, signal.SIGSTOP)
            await eventually(lambda: engine.is_silent(time.monotonic(), 0.2))
            await pool.look_after()
            assert engine.state is State.STOPPED
        assert await use(pool, target()) is engine
        assert engine.starts == 2


async def test_an_engine_that_is_only_slow_is_left_alone(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, stream_silence_seconds=0.2) as pool, pool.lease(target()) as engine:
        hanging = {"model": "test/a", "messages": [{"role": "user", "content": "[simulate: hang=0]"}]}
        slow = asyncio.create_task(engine.client.chat(hanging, silence_seconds=60).__aenter__())
        await eventually(lambda: engine.is_silent(time.monotonic(), 0.2))
        await pool.look_after()
        assert engine.is_ready
        slow.cancel()
        await asyncio.wait([slow])


async def test_an_engine_that_idles_for_long_is_stopped(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path, engine_idle_seconds=0.01) as pool:
        async with pool.lease(target()):
            await pool.look_after()
            assert names(pool) == {"a"}
        await anyio.sleep(0.02)
        await pool.look_after()
        assert (names(pool), await holders(store), processes_of(tmp_path)) == (set(), [], [])


async def test_devices_are_held_while_another_engine_hangs(tmp_path: Path, store: Store) -> None:
    options: Any = {"stream_silence_seconds": 0.5, "engine_stop_seconds": 0.2}
    async with pool_on(store, tmp_path, **options) as pool, pool.lease(target("a")) as engine:
        assert engine.pid
        os.kill(engine.pid, signal.SIGSTOP)
        await eventually(lambda: engine.is_silent(time.monotonic(), 0.5))
        looking = asyncio.create_task(pool.look_after())
        async with store.begin() as session:
            await session.execute(update(DeviceLease).values(expires_at=0.0))
        await pool.hold_devices()
        async with store.read() as session:
            assert len(await leases.held(session)) == 1
        assert not looking.done()
        await looking


async def test_an_engine_whose_devices_are_somebody_elses_is_stopped(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        await use(pool, target())
        async with store.begin() as session:
            await session.execute(update(DeviceLease).values(holder="ftjob-1"))
        await pool.hold_devices()
        assert (names(pool), processes_of(tmp_path), await holders(store)) == (set(), [], ["ftjob-1"])


async def test_an_engine_that_goes_twice_does_not_take_its_successor_along(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        first = await use(pool, target())
        await pool._fleet.retire(first)
        second = await use(pool, target())
        await pool._fleet.retire(first)
        assert pool.engines == [second]
        assert second.is_ready


async def test_a_drain_lets_what_runs_end_and_takes_nothing_new(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        released = asyncio.Event()
        running = asyncio.create_task(hold(pool, target(), released))
        await eventually(lambda: pool.engines and pool.engines[0].is_ready)
        draining = asyncio.create_task(pool.drain(grace_seconds=30))
        assert await stays_waiting(draining)
        with pytest.raises(Draining):
            await use(pool, target())
        assert pool.engines[0].is_ready
        released.set()
        await asyncio.gather(running, draining)
        assert (pool.engines, await holders(store), processes_of(tmp_path)) == ([], [], [])


async def test_who_waits_for_an_engine_to_end_does_not_start_it_after_the_drain(tmp_path: Path, store: Store) -> None:
    options: Any = {"simulate_faults": ["ignore_sigterm"], "engine_stop_seconds": 0.5}
    async with pool_on(store, tmp_path, **options) as pool:
        engine = await use(pool, target())
        ending = asyncio.create_task(engine.stop())
        await eventually(lambda: engine.state is State.STOPPING)
        late = asyncio.create_task(use(pool, target()))
        await eventually(lambda: engine.in_flight)
        await asyncio.gather(ending, pool.drain(grace_seconds=0.1))
        with pytest.raises(Unavailable, match="has just stopped"):
            await late
        assert (engine.state, processes_of(tmp_path)) == (State.STOPPED, [])


async def test_a_drain_does_not_wait_longer_than_its_grace(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool, pool.lease(target()):
        with anyio.fail_after(5):
            await pool.drain(grace_seconds=0.1)
        assert processes_of(tmp_path) == []


async def test_who_was_looking_for_a_place_when_the_drain_came_starts_nothing(tmp_path: Path, store: Store) -> None:
    async with pool_on(store, tmp_path) as pool:
        late = asyncio.create_task(use(pool, target()))
        waiting = asyncio.create_task(use(pool, target("b")))  # behind it
        await asyncio.sleep(0)
        await pool.drain(grace_seconds=0.1)
        await asyncio.gather(late, waiting, return_exceptions=True)
        await eventually(lambda: not processes_of(tmp_path))
        assert (pool.engines, await holders(store)) == ([], [])
