"""Whose turn it is: fair between organisations, by age within each, also when many claim at once."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import true, update

from app.catalog.spec import GpuChoice
from app.ids import new_id
from app.jobs import queue
from app.jobs.states import Stage, Status
from app.jobs.waiting import list_next
from app.store.session import Store
from app.store.tables import Job
from tests.rows import make_job, make_org

pytestmark = pytest.mark.anyio


async def add_jobs(store: Store, plan: str) -> None:
    """`a1 a2 b1`: jobs of organisations a and b, the oldest first."""
    async with store.begin() as session:
        orgs = {name: await make_org(session, name) for name in sorted({word[0] for word in plan.split()})}
        for position, word in enumerate(plan.split()):
            await make_job(session, orgs[word[0]], id=new_id("ftjob"), suffix=word, created_at=float(position))


async def begin(store: Store, *, seconds: float = 60) -> str | None:
    async with store.begin() as session:
        claimed = await queue.claim(session, "w", Stage.TRAIN, lease_seconds=seconds)
        return claimed[0].suffix if claimed else None


async def end(store: Store, suffix: str | None) -> None:
    async with store.begin() as session:
        await session.execute(update(Job).where(Job.suffix == suffix).values(status=Status.SUCCEEDED))


async def run_through(store: Store) -> str:
    """One worker: each job ends before the next is begun."""
    order = []
    while suffix := await begin(store):
        order.append(suffix)
        await end(store, suffix)
    return " ".join(order)


async def test_organisations_take_turns_however_many_jobs_one_has(store: Store) -> None:
    await add_jobs(store, "a1 a2 a3 a4 b1 b2 c1")
    assert await run_through(store) == "a1 b1 c1 a2 b2 a3 a4"


@pytest.mark.parametrize("n_round", range(2))
async def test_workers_that_claim_at_once_are_as_fair(store_url: str, n_round: int) -> None:
    stores = [Store(store_url) for _ in range(3)]
    await add_jobs(stores[0], "a1 a2 a3 a4 b1 c1")
    begun = await asyncio.gather(*(begin(store) for store in stores))
    assert sorted(map(str, begun)) == ["a1", "b1", "c1"]
    assert await begin(stores[0]) == "a2"
    for store in stores:
        await store.close()


async def test_who_has_fewest_running_comes_first(store: Store) -> None:
    await add_jobs(store, "a1 a2 a3 b1 b2 b3")
    assert [await begin(store) for _ in range(3)] == ["a1", "b1", "a2"]
    await end(store, "b1")
    assert [await begin(store) for _ in range(3)] == ["b2", "b3", "a3"]


async def test_what_was_interrupted_goes_on_before_what_has_not_begun(store: Store) -> None:
    await add_jobs(store, "a1 b1 a2")
    assert await begin(store, seconds=-1) == "a1"
    assert [await begin(store) for _ in range(3)] == ["a1", "b1", "a2"]


async def test_workers_hear_of_every_job_that_waits_for_devices(store: Store) -> None:
    """Also of one whose worker died."""
    jobs: dict[str, dict[str, Any]] = {
        "CPU": {},
        "A100": {"status": Status.RUNNING, "lease_expires_at": 0.0},
        "H100": {"status": Status.RUNNING, "lease_expires_at": 1e12},
        "L40S": {"status": Status.RUNNING, "stage": Stage.PUBLISH},
        "H200": {"status": Status.PAUSED},
    }
    async with store.begin() as session:
        for position, (gpu, changes) in enumerate(jobs.items()):
            await make_job(session, gpu=gpu, created_at=float(position), **changes)
    assert await heard(store) == ["CPU", "A100"]


async def test_many_jobs_of_one_kind_hide_no_other_kind(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        for position, gpu in enumerate(["A100:2"] * 300 + ["A100", "CPU"]):
            await make_job(session, org, gpu=gpu, created_at=float(position))
    assert await heard(store) == ["A100:2", "A100", "CPU"]


async def heard(store: Store) -> list[str]:
    async with store.read() as session:
        waiting = await list_next(session, true())
    assert all(isinstance(gpu, GpuChoice) for _, gpu in waiting)
    return [str(gpu) for _, gpu in waiting]
