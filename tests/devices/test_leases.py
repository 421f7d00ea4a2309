"""Devices are never held by two, and never lost for good."""

import asyncio

import pytest
from sqlalchemy import select, update

from app.catalog.spec import GpuChoice
from app.devices import leases
from app.devices.inventory import Device, declared
from app.store.session import Store
from app.store.tables import DeviceLease

pytestmark = pytest.mark.anyio

DEVICES = declared(["A100:4", "CPU:2"])


async def acquire(store: Store, holder: str, gpu: str = "A100", *, seconds: float = 60) -> list[Device]:
    async with store.begin() as session:
        return await leases.acquire(session, DEVICES, GpuChoice.parse(gpu), holder, seconds=seconds)


async def held(store: Store) -> dict[str, str]:
    async with store.read() as session:
        names = await leases.held(session)
        rows = await session.scalars(select(DeviceLease))
        return {row.device: row.holder for row in rows if row.device in names}


async def release(store: Store, holder: str) -> None:
    async with store.begin() as session:
        await leases.release(session, holder)


async def run_out(store: Store) -> None:
    async with store.begin() as session:
        await session.execute(update(DeviceLease).values(expires_at=0.0))


@pytest.mark.parametrize("gpu", ["A100", "A100:2", "A100:3"])
async def test_devices_are_never_held_by_two(store_url: str, gpu: str) -> None:
    stores = [Store(store_url) for _ in range(3)]
    got = await asyncio.gather(*(acquire(stores[n % 3], f"h{n}", gpu) for n in range(10)))
    count = GpuChoice.parse(gpu).count
    assert {len(devices) for devices in got} <= {0, count}
    taken = [device.name for devices in got for device in devices]
    assert len(taken) == len(set(taken))
    assert set(await held(stores[0])) == set(taken)
    assert all(device.type == "A100" for devices in got for device in devices)
    # Whoever came too late gets what is left, when it asks again.
    while len(taken) + count <= 4:
        taken += [device.name for device in await acquire(stores[0], f"later {len(taken)}", gpu)]
    assert await acquire(stores[0], "too late", gpu) == []
    for store in stores:
        await store.close()


async def test_expired_devices_are_taken_over_by_one(store: Store) -> None:
    assert len(await acquire(store, "dead", "A100:4")) == 4
    await run_out(store)
    got = await asyncio.gather(*(acquire(store, f"h{n}", "A100:4") for n in range(6)))
    assert len([devices for devices in got if devices]) == 1
    assert len(set((await held(store)).values())) == 1


async def test_too_few_devices_are_none(store: Store) -> None:
    await acquire(store, "one")
    assert await acquire(store, "four", "A100:4") == []
    assert set((await held(store)).values()) == {"one"}
    assert await acquire(store, "none of the type", "H100") == []


async def test_a_late_holder_does_not_get_back_what_others_took(store: Store) -> None:
    await acquire(store, "late", "A100:4")
    await run_out(store)
    await acquire(store, "quick", "A100:4")
    async with store.begin() as session:
        await leases.extend(session, "late", seconds=60)
    await release(store, "late")
    assert set((await held(store)).values()) == {"quick"}


async def test_released_devices_are_free_and_others_stay_held(store: Store) -> None:
    await acquire(store, "mine", "A100:2")
    await acquire(store, "theirs", "A100:2")
    await release(store, "mine")
    assert set((await held(store)).values()) == {"theirs"}
    assert len(await acquire(store, "next", "A100:2")) == 2


async def test_a_lease_lasts_as_long_as_it_is_extended(store: Store) -> None:
    await acquire(store, "holder", seconds=-1)
    assert await held(store) == {}
    async with store.begin() as session:
        await leases.extend(session, "holder", seconds=60)
    assert set((await held(store)).values()) == {"holder"}
