"""Sleep: an engine gives its memory back and keeps its process, and is believed again only if it is the same."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.billing.charges import Charges
from app.billing.funds import Funds
from app.catalog.resolve import AdapterRef, Target
from app.devices.inventory import declared
from app.engines.client import Token
from app.engines.engine import Engine, State
from app.engines.pool import EnginePool
from app.engines.process import EngineProcess
from app.engines.sleep import LOGPROB_TOLERANCE, Level, choose_level, says_the_same
from app.engines.warmup import Warmups
from app.errors import Unavailable
from app.files.storage import Storage
from app.store.session import Store
from tests.engines.running import engine_in, processes_of, simulating, write_adapter
from tests.eventually import eventually
from tests.rows import CATALOG, give_credit, key_of, make_org, target
from tests.stores import SqliteStores

pytestmark = pytest.mark.anyio

SMALL = target(gpu="A100")
HUGE = replace(SMALL, model=SMALL.model.model_copy(update={"parameters_billions": 1e6}))  # for the memory of any host


@pytest.mark.parametrize(
    ("available", "weights", "level"),
    [(50, 30, Level.KEEP_WEIGHTS), (50, 31, Level.DROP_WEIGHTS), (100, 80, Level.KEEP_WEIGHTS), (10, 0, Level(2))],
)
def test_weights_stay_in_host_memory_while_that_leaves_enough_of_it(available: int, weights: int, level: Level) -> None:
    assert choose_level(weights, available_bytes=available, total_bytes=100) == level


SAID = [Token("one", -0.5), Token(" two", -1.0)]


@pytest.mark.parametrize(
    ("after", "is_same"),
    [
        (SAID, True),
        ([Token("one", -0.5 - LOGPROB_TOLERANCE / 2), SAID[1]], True),
        ([Token("one", -0.5 - LOGPROB_TOLERANCE * 2), SAID[1]], False),
        ([Token("One", -0.5), SAID[1]], False),
        (SAID[:1], False),
        ([*SAID, Token("!", 0.0)], False),
        ([Token("one", float("nan")), SAID[1]], False),
    ],
)
def test_the_same_is_the_same_words_said_as_surely(after: list[Token], is_same: bool) -> None:
    assert says_the_same(SAID, after) == is_same


@asynccontextmanager
async def sleeper(folder: Path, wanted: Target = SMALL, **changes: Any) -> AsyncIterator[Engine]:
    async with engine_in(folder, wanted, **{"sleep_mode": True, **changes}) as engine:
        await ready(engine)
        yield engine


async def ready(engine: Engine) -> None:
    await engine.ensure_ready(within_seconds=30)


async def asleep(engine: Engine) -> None:
    engine.fall_asleep()
    assert engine._falling_asleep
    await asyncio.wait([engine._falling_asleep])


async def say(engine: Engine, name: str = SMALL.model.id) -> str:
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}]}
    async with engine.client.chat(body, silence_seconds=10) as answer:
        content: str = orjson.loads(await answer.read_all())["choices"][0]["message"]["content"]
        return content


async def say_as(engine: Engine, adapter: AdapterRef) -> str:
    async with engine.adapters.held(adapter, within_seconds=10):
        return await say(engine, adapter.id)


@pytest.mark.parametrize(("wanted", "level"), [(SMALL, 1), (HUGE, 2)])
async def test_an_engine_wakes_as_it_fell_asleep_and_in_the_same_process(
    tmp_path: Path, wanted: Target, level: int
) -> None:
    async with sleeper(tmp_path, wanted) as engine:
        before, pid = await say(engine), engine.pid
        await asleep(engine)
        assert (engine.state, engine.pid) == (State.SLEEPING, pid)
        assert await engine.client.is_sleeping()
        assert f"Sleeping at level {level}" in engine.log.path.read_text()
        await asyncio.gather(*(ready(engine) for _ in range(5)))
        assert (engine.starts, engine.pid, await say(engine)) == (2, pid, before)
        assert not await engine.client.is_sleeping()


async def test_an_adapter_has_its_effect_again_after_a_sleep(tmp_path: Path) -> None:
    """A sleep leaves the engine the name alone, and loading what has a name counts as done."""
    async with sleeper(tmp_path) as engine:
        adapter = write_adapter(Storage(tmp_path))
        before = await say_as(engine, adapter)
        assert adapter.id in before
        await asleep(engine)
        with pytest.raises(Unavailable):
            await engine.adapters.preload(write_adapter(Storage(tmp_path)))
        await ready(engine)
        assert await say_as(engine, adapter) == before


@pytest.mark.parametrize("fault", ["wake_fails", "wake_crashes", "wake_spoils", "reset_refused"])
@pytest.mark.parametrize("wanted", [SMALL, HUGE])
async def test_a_wake_that_cannot_be_believed_is_a_cold_start(tmp_path: Path, fault: str, wanted: Target) -> None:
    async with sleeper(tmp_path, wanted, simulate_faults=[fault]) as engine:
        before, pid = await say(engine), engine.pid
        await asleep(engine)
        await ready(engine)
        assert engine.pid != pid
        assert (engine.starts, engine.failure, await say(engine)) == (2, None, before)
        assert [process.pid for process in processes_of(tmp_path)] == [engine.pid]
        assert engine.pid  # the old process is watched no more, and the new one is
        os.kill(engine.pid, signal.SIGKILL)
        await eventually(lambda: engine.state is State.STOPPED)


async def test_who_comes_while_it_falls_asleep_is_served(tmp_path: Path) -> None:
    async with sleeper(tmp_path, simulate_faults=["sleep_takes:0.3"]) as engine:
        pid = engine.pid
        engine.fall_asleep()
        await asyncio.sleep(0)
        await ready(engine)
        assert (await say(engine), engine.pid, engine.starts) == (await say(engine), pid, 2)


async def test_who_comes_while_it_fails_to_fall_asleep_is_served_by_a_new_process(tmp_path: Path) -> None:
    async with sleeper(tmp_path, simulate_faults=["sleep_fails"]) as engine:
        pid = engine.pid
        engine.fall_asleep()
        await ready(engine)
        assert await say(engine)
        assert engine.pid != pid


async def test_one_that_cannot_sleep_is_stopped(tmp_path: Path) -> None:
    async with sleeper(tmp_path, simulate_faults=["sleep_fails"]) as engine:
        await asleep(engine)
        assert (engine.state, processes_of(tmp_path)) == (State.STOPPED, [])
        await ready(engine)


async def test_one_that_dies_in_its_sleep_is_noticed(tmp_path: Path) -> None:
    async with sleeper(tmp_path) as engine:
        await asleep(engine)
        assert engine.pid
        os.kill(engine.pid, signal.SIGKILL)
        await eventually(lambda: engine.state is State.STOPPED)
        assert engine.failure
        await ready(engine)


async def test_one_that_dies_in_the_very_moment_it_is_woken_is_a_cold_start(tmp_path: Path) -> None:
    async with sleeper(tmp_path) as engine:
        await asleep(engine)
        assert engine.pid
        assert engine._process
        os.kill(engine.pid, signal.SIGKILL)
        await until_seen_dead(engine._process)
        engine.ensure_starting()
        await ready(engine)
        assert (engine.starts, engine.failure, bool(await say(engine))) == (2, None, True)


async def until_seen_dead(process: EngineProcess) -> None:
    """Returns before those who are told of it have been."""
    assert process._child
    while process._child.returncode is None:
        await asyncio.sleep(0)


@pytest.mark.parametrize("faults", [[], ["sleep_takes:60"]])
async def test_one_that_sleeps_or_falls_asleep_can_be_stopped(tmp_path: Path, faults: list[str]) -> None:
    async with sleeper(tmp_path, simulate_faults=faults) as engine:
        engine.fall_asleep()
        await asyncio.sleep(0.1)
        await engine.stop()
        assert (engine.state, processes_of(tmp_path)) == (State.STOPPED, [])


async def test_a_stop_in_the_middle_of_a_wake_leaves_nothing(tmp_path: Path) -> None:
    async with sleeper(tmp_path, simulate_faults=["sleep_takes:60"]) as engine:
        engine.fall_asleep()
        waking = asyncio.create_task(ready(engine))
        await eventually(lambda: engine.state is State.STARTING)
        await engine.stop()
        with pytest.raises(Unavailable):
            await waking
        assert (engine.state, processes_of(tmp_path)) == (State.STOPPED, [])


@pytest.mark.parametrize(("wanted", "changes"), [(target(), {}), (SMALL, {"sleep_mode": False})])
async def test_none_sleeps_on_a_cpu_or_unless_it_is_wanted(
    tmp_path: Path, wanted: Target, changes: dict[str, Any]
) -> None:
    async with sleeper(tmp_path, wanted, **changes) as engine:
        engine.fall_asleep()
        assert engine.is_ready


@asynccontextmanager
async def pool_of_sleepers(
    stores: SqliteStores, folder: Path, **changes: Any
) -> AsyncIterator[tuple[EnginePool, Store]]:
    options = {"sleep_mode": True, "sleep_after_seconds": 0.0, "settle_seconds": 0.0}
    store = Store(stores.new_url())
    pool = EnginePool(simulating(folder, **{**options, **changes}), store, Storage(folder), declared(["A100:1"]))
    try:
        yield pool, store
    finally:
        await pool.drain(grace_seconds=0.1)
        await store.close()


async def test_an_idle_engine_sleeps_and_a_busy_one_does_not(tmp_path: Path, sqlite_stores: SqliteStores) -> None:
    async with pool_of_sleepers(sqlite_stores, tmp_path) as (pool, _):
        async with pool.lease(SMALL) as engine:
            await pool.look_after()
            assert engine.is_ready
        used_at = engine.last_used
        await pool.look_after()
        assert (engine.state, engine.last_used) == (State.SLEEPING, used_at)
        assert pool.lease_now(SMALL, body={}) is None
        async with pool.lease(SMALL) as same:
            assert same is engine
            assert await say(same)


async def test_one_that_sleeps_gives_way_and_stops_when_nobody_comes(
    tmp_path: Path, sqlite_stores: SqliteStores
) -> None:
    async with pool_of_sleepers(sqlite_stores, tmp_path, engine_idle_seconds=60) as (pool, _):
        for model in ("a", "b"):
            async with pool.lease(target(model, gpu="A100")):
                pass
            await pool.look_after()
        [engine] = pool.engines
        assert (engine.state, engine.model.id) == (State.SLEEPING, "test/b")
        engine.last_used = time.monotonic() - 61
        await pool.look_after()
        assert (pool.engines, processes_of(tmp_path)) == ([], [])


async def test_one_that_sleeps_counts_as_cold_and_its_wake_is_charged(
    tmp_path: Path, sqlite_stores: SqliteStores
) -> None:
    async with pool_of_sleepers(sqlite_stores, tmp_path) as (pool, store):
        async with store.begin() as session:
            org = await make_org(session)
            await give_credit(session, org.id)
        warmups = Warmups(pool, Charges(store, Funds(store, lease_seconds=15)), CATALOG, cold_start_seconds=60)
        async with pool.lease(SMALL) as engine:
            pass
        await pool.look_after()
        assert warmups.state(org.id, SMALL.model, SMALL.gpu).word == "cold"
        assert warmups.start(SMALL, key_of(org)) == "warming"
        await eventually(lambda: engine.is_ready)
        assert engine.starts == 2
        await warmups.close()
