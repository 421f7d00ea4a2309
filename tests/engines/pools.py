"""Pools on simulated engines, for tests of who gets one: a gateway each, looking at the devices all the time."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from app.catalog.resolve import Target
from app.catalog.spec import GpuChoice
from app.devices import wishes
from app.devices.inventory import declared
from app.engines.engine import Engine
from app.engines.pool import EnginePool
from app.files.storage import Storage
from app.store.session import Store
from app.store.tables import DeviceLease, DeviceWish
from app.upkeep.loops import repeat
from tests.engines.running import simulating

LOOK_SECONDS = 0.05
A_LITTLE = 0.4  # seconds, of a wait that is not to end


@asynccontextmanager
async def pool_on(
    store: Store, folder: Path, *, devices: Sequence[str] = ("CPU:2",), **changes: Any
) -> AsyncIterator[EnginePool]:
    settings = simulating(folder, **{"settle_seconds": 0.0, **changes})
    pool = EnginePool(settings, store, Storage(folder), declared(devices))
    looking = asyncio.create_task(repeat("look", pool.look_at_devices, LOOK_SECONDS))
    try:
        yield pool
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        await pool.drain(grace_seconds=0.1)


async def use(pool: EnginePool, wanted: Target) -> Engine:
    async with pool.lease(wanted) as engine:
        assert await engine.client.answers(wanted.engine_name, within_seconds=10)
        return engine


async def hold(pool: EnginePool, wanted: Target, until: asyncio.Event) -> None:
    async with pool.lease(wanted):
        await until.wait()


async def stays_waiting(task: asyncio.Task[Any]) -> bool:
    await asyncio.wait([task], timeout=A_LITTLE)
    return not task.done()


def names(pool: EnginePool) -> set[str]:
    return {engine.model.id[-1] for engine in pool.engines}


async def holders(store: Store) -> list[str]:
    async with store.read() as session:
        return list(await session.scalars(select(DeviceLease.holder)))


async def no_wishes(store: Store) -> bool:
    async with store.read() as session:
        return not list(await session.scalars(select(DeviceWish.holder)))


async def wish(store: Store, gpu: str, *, since_seconds: float = 0.0, job: str = "ftjob-1") -> None:
    """A worker of this host would take devices for a job."""
    async with store.begin() as session:
        await wishes.wish(session, socket.gethostname(), job, GpuChoice.parse(gpu), seconds=60)
        await session.execute(update(DeviceWish).values(wished_at=DeviceWish.wished_at - since_seconds))


async def withdraw(store: Store, job: str = "ftjob-1") -> None:
    async with store.begin() as session:
        await wishes.withdraw(session, socket.gethostname(), job)
