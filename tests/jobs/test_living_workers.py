"""Workers show what they can run; a job that none of them can run says so, once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from app.catalog.spec import GpuChoice
from app.devices.inventory import declared
from app.jobs.events import list_after
from app.jobs.living_workers import (
    Capacity,
    can_run,
    capacities_in,
    capacities_of,
    leave,
    list_living,
    show,
    tell_of_no_worker,
)
from app.store.session import Store
from app.store.tables import Job, Worker
from tests.rows import make_job, make_org

pytestmark = pytest.mark.anyio

TWO_A100 = Capacity("A100", 2, 80)


async def say(store: Store, worker_id: str, *capacities: Capacity, seconds: float = 60) -> None:
    async with store.begin() as session:
        await show(session, worker_id, f"host of {worker_id}", capacities, seconds=seconds)


async def tell(store: Store, *, after_seconds: float = 0.0) -> None:
    async with store.begin() as session:
        await tell_of_no_worker(session, after_seconds=after_seconds)


async def told(store: Store, job_id: str) -> list[str]:
    async with store.read() as session:
        return [event.message for event in await list_after(session, job_id, 0, limit=100)]


def test_a_host_has_the_memory_of_the_smallest_of_its_kind() -> None:
    devices = [replace(d, memory_bytes=n) for d, n in zip(declared(["A100:2", "CPU"]), (80, 40, 16), strict=True)]
    assert capacities_of(devices) == [Capacity("A100", 2, 40), Capacity("CPU", 1, 0)]


@pytest.mark.parametrize(
    ("gpu", "memory_bytes", "capacities", "fits"),
    [
        ("A100", 80, [TWO_A100], True),
        ("A100:2", 80, [TWO_A100], True),
        ("A100:4", 1, [TWO_A100], False),
        ("A100", 81, [TWO_A100], False),
        ("A100", 81, [TWO_A100, Capacity("A100", 1, 90)], True),
        ("H100", 0, [TWO_A100], False),
        ("CPU", 10**12, [Capacity("CPU", 1, 0)], True),
        ("CPU", 0, [], False),
    ],
)
async def test_what_fits_is_the_same_in_sql(
    store: Store, gpu: str, memory_bytes: int, capacities: Sequence[Capacity], fits: bool
) -> None:
    async with store.begin() as session:
        await make_job(session, gpu=gpu, memory_bytes=memory_bytes)
    async with store.read() as session:
        found = await session.scalar(select(Job.id).where(can_run(capacities)))
    assert (found is not None) == fits
    assert any(capacity.fits(GpuChoice.parse(gpu), memory_bytes) for capacity in capacities) == fits


async def test_a_worker_is_known_while_it_shows_itself(store: Store) -> None:
    await say(store, "one", TWO_A100)
    await say(store, "one", TWO_A100)
    await say(store, "two", Capacity("CPU", 1, 0))
    await say(store, "dead", Capacity("H100", 8, 0), seconds=-1)
    async with store.begin() as session:
        living = await list_living(session)
        assert [worker.id for worker in living] == ["one", "two"]
        assert capacities_in(living) == [TWO_A100, Capacity("CPU", 1, 0)]
        await leave(session, "one")
        assert [worker.id for worker in await list_living(session)] == ["two"]


async def test_a_job_that_no_living_worker_can_run_says_so_once(store: Store) -> None:
    await say(store, "one", Capacity("CPU", 2, 0))
    await say(store, "dead", Capacity("H100", 8, 0), seconds=-1)
    async with store.begin() as session:
        org = await make_org(session)
        fine, stuck = [(await make_job(session, org, gpu=gpu, memory_bytes=3 << 29)).id for gpu in ("CPU", "H100")]
    await asyncio.gather(*(tell(store) for _ in range(4)))
    assert await told(store, stuck) == [
        "No worker that runs now can train on H100 with 1.5 GiB each; the job waits for one"
    ]
    assert await told(store, fine) == []
    async with store.begin() as session:
        await session.execute(update(Worker).values(expires_at=0.0))
    await tell(store, after_seconds=60)
    assert await told(store, fine) == []  # a worker may just be starting again
    await tell(store)
    assert len(await told(store, fine)) == 1
