"""A job holds what it is going to cost, and waits for credit where there is none."""

import pytest
from sqlalchemy import update

from app.billing import holds
from app.billing.ledger import InsufficientFunds, balance_micros
from app.jobs import queue
from app.jobs.cost import cost_micros, estimate_micros
from app.jobs.events import list_after
from app.jobs.funding import fund, require_estimate, resume_funded
from app.jobs.queue import Lease
from app.jobs.states import Stage, Status
from app.store.session import Store
from app.store.tables import Hold, Job
from app.upkeep.sweeping import Swept, sweep_holds
from tests.rows import CATALOG, give_credit, make_file, make_job, make_org

pytestmark = pytest.mark.anyio

SECOND_MICROS = 100  # of the CPU
AHEAD = 3 * 10 * SECOND_MICROS  # three leases of ten seconds


async def new_job(store: Store, credit_micros: int) -> str:
    """Of ten rows, as long as the context."""
    async with store.begin() as session:
        org = await make_org(session)
        await give_credit(session, org.id, credit_micros)
        file = await make_file(session, org, row_lengths={"100000": 10})
        job = await make_job(session, org, training_file=file.id)
        job.estimated_micros = await estimate_micros(session, CATALOG, job)
        await queue.enqueue(session, job)
    return job.id


async def claimed(store: Store, job_id: str) -> Lease:
    async with store.begin() as session:
        claim = await queue.claim(session, "worker", Stage.TRAIN, lease_seconds=10)
    assert claim
    assert claim[0].id == job_id
    return claim[1]


async def funded(store: Store, job_id: str) -> bool:
    async with store.begin() as session:
        return await fund(session, CATALOG, await session.get_one(Job, job_id), lease_seconds=10)


async def get_job(store: Store, job_id: str) -> Job:
    async with store.read() as session:
        return await session.get_one(Job, job_id)


async def held(store: Store, job_id: str) -> int:
    async with store.begin() as session:
        job = await session.get_one(Job, job_id)
        return (await holds.look(session, job.org_id, "nobody")).others_micros


async def test_a_job_that_cannot_be_paid_is_refused(store: Store) -> None:
    job = await get_job(store, await new_job(store, 1000))
    async with store.begin() as session:
        with pytest.raises(InsufficientFunds):
            await require_estimate(session, job)


async def test_the_estimate_is_held_or_as_much_as_there_is(store: Store) -> None:
    rich, poor = await new_job(store, 10**9), await new_job(store, AHEAD + 1)
    assert await funded(store, rich)
    assert await funded(store, poor)
    assert await held(store, rich) > 10**5
    assert await held(store, poor) == AHEAD + 1


async def test_a_job_that_used_up_the_balance_waits_for_credit_and_goes_on_by_itself(store: Store) -> None:
    job_id = await new_job(store, 2 * AHEAD)
    lease = await claimed(store, job_id)
    assert await funded(store, job_id)
    async with store.begin() as session:
        await queue.use_gpus(session, lease, 40.0)
    assert not await funded(store, job_id)
    job = await get_job(store, job_id)
    assert (job.status, job.waits_for_credit) == (Status.PAUSED, True)
    assert await held(store, job_id) == cost_micros(CATALOG, job) == 40 * SECOND_MICROS
    async with store.read() as session:
        assert "credit" in (await list_after(session, job_id, 0, limit=10))[-1].message
    await resume(store)
    assert (await get_job(store, job_id)).status == Status.PAUSED
    async with store.begin() as session:
        await give_credit(session, job.org_id, 2 * AHEAD)
    await resume(store)
    assert (await get_job(store, job_id)).status == Status.QUEUED


async def resume(store: Store) -> None:
    async with store.begin() as session:
        await resume_funded(session, CATALOG, lease_seconds=10)


@pytest.mark.parametrize("end", ["fail", "cancel"])
async def test_nothing_is_held_for_a_job_that_is_over(store: Store, end: str) -> None:
    job_id = await new_job(store, 10**9)
    lease = await claimed(store, job_id)
    assert await funded(store, job_id)
    async with store.begin() as session:
        if end == "fail":
            await queue.fail(session, lease, code="c", message="m")
        else:
            await queue.use_gpus(session, lease, 40.0)
            await queue.cancel(session, CATALOG, await session.get_one(Job, job_id))
    assert await held(store, job_id) == 0
    async with store.read() as session:
        left = await balance_micros(session, (await get_job(store, job_id)).org_id)
    assert left == 10**9 - (0 if end == "fail" else 40 * SECOND_MICROS)


@pytest.mark.parametrize("stop", ["pause", "die"])
async def test_what_a_job_has_cost_stays_held_when_its_lease_has_run_out_and_no_more(store: Store, stop: str) -> None:
    job_id = await new_job(store, 10**9)
    lease = await claimed(store, job_id)
    async with store.begin() as session:
        await queue.use_gpus(session, lease, 40.0)
    assert await funded(store, job_id)
    async with store.begin() as session:
        if stop == "pause":
            await queue.pause(session, await session.get_one(Job, job_id))
        await session.execute(update(Hold).values(expires_at=0.0))
    job = await get_job(store, job_id)
    cost = cost_micros(CATALOG, job)
    assert cost <= await held(store, job_id) <= 2 * cost
    assert await sweep_holds(store, dry=False) == [Swept("holds of nobody", 0)]
    async with store.begin() as session:
        await queue.cancel(session, CATALOG, job)
    assert await held(store, job_id) == 0
    async with store.read() as session:
        assert await balance_micros(session, job.org_id) == 10**9 - cost
