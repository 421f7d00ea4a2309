"""Gateways of one host that share its devices by the store: each on a connection of its own, on each database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.engines.pool import EnginePool
from app.store.session import Store
from tests.engines.pools import A_LITTLE, hold, no_wishes, pool_on, stays_waiting, use, wish, withdraw
from tests.engines.running import processes_of
from tests.eventually import eventually
from tests.rows import target

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def two_gateways(store_url: str, folder: Path, **options: Any) -> AsyncIterator[tuple[EnginePool, EnginePool]]:
    """Nobody's lease runs out here: what is given is given."""
    here, there = Store(store_url), Store(store_url)
    options["lease_seconds"] = 60.0
    try:
        async with (
            pool_on(here, folder / "here", **options) as first,
            pool_on(there, folder / "there", **options) as second,
        ):
            yield first, second
    finally:
        await here.close()
        await there.close()


async def test_they_never_use_more_devices_than_there_are(tmp_path: Path, store_url: str) -> None:
    async with two_gateways(store_url, tmp_path, devices=["CPU:1"]) as (first, second):
        released = asyncio.Event()
        holding = [asyncio.create_task(hold(pool, target(), released)) for pool in (first, second)]
        await eventually(lambda: any(engine.is_ready for pool in (first, second) for engine in pool.engines))
        assert await stays_waiting(holding[0]) or await stays_waiting(holding[1])
        assert len(first.engines) + len(second.engines) == 1
        assert len(processes_of(tmp_path)) == 1
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)


async def test_an_idle_engine_gives_way_to_a_request_at_another(tmp_path: Path, store_url: str, store: Store) -> None:
    async with two_gateways(store_url, tmp_path, devices=["CPU:1"]) as (first, second):
        for idle, asked in ((first, second), (second, first), (first, second)):
            await use(idle, target("a"))
            assert await use(asked, target("b"))
            assert idle.engines == []
        await eventually(lambda: no_wishes(store))


async def test_a_busy_engine_drains_for_who_has_waited_long_at_another(tmp_path: Path, store_url: str) -> None:
    options: Any = {"devices": ["CPU:1"], "drain_after_seconds": A_LITTLE}
    async with two_gateways(store_url, tmp_path, **options) as (first, second):
        released = asyncio.Event()
        running = asyncio.create_task(hold(first, target("a"), released))
        await eventually(lambda: first.engines and first.engines[0].is_ready)
        waiting = asyncio.create_task(use(second, target("b")))
        await eventually(lambda: first._placer.giving_way)
        assert not waiting.done()
        released.set()
        await asyncio.gather(running, waiting)


async def test_they_take_turns_where_both_want_the_only_device(tmp_path: Path, store_url: str, store: Store) -> None:
    async with two_gateways(store_url, tmp_path, devices=["CPU:1"]) as (first, second):
        async with asyncio.timeout(60):
            await asyncio.gather(*(use(pool, target(model)) for model in "abc" for pool in (first, second)))
        await eventually(lambda: no_wishes(store))


async def test_each_gives_what_it_has_to_a_job_that_none_has_enough_for(
    tmp_path: Path, store_url: str, store: Store
) -> None:
    async with two_gateways(store_url, tmp_path, devices=["CPU:2"]) as (first, second):
        await asyncio.gather(use(first, target("a")), use(second, target("b")))
        await wish(store, "CPU:2")
        await eventually(lambda: not first.engines and not second.engines)
        late = asyncio.create_task(use(first, target("a")))
        assert await stays_waiting(late)
        await withdraw(store)
        await late


async def test_a_request_for_two_devices_is_served_though_each_gateway_keeps_one_busy(
    tmp_path: Path, store_url: str
) -> None:
    options: Any = {"devices": ["CPU:2"], "drain_after_seconds": A_LITTLE}
    async with two_gateways(store_url, tmp_path, **options) as (first, second):
        busy = [
            asyncio.create_task(keep_busy(pool, model)) for pool, model in ((first, "a"), (second, "b")) for _ in "12"
        ]
        await eventually(lambda: first.engines and second.engines)
        async with asyncio.timeout(30):
            await use(first, target("c", gpu="CPU:2"))
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)


async def keep_busy(pool: EnginePool, model: str) -> None:
    while True:
        await use(pool, target(model))
