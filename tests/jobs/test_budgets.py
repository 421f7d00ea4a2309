"""Monthly budgets hold jobs too: before they begin, and as they run."""

from typing import Any

import pytest
from sqlalchemy import update

from app.billing.budgets import BudgetSpent, used_this_month
from app.billing.ledger import Entry, append, list_entries
from app.jobs import queue
from app.jobs.budgets import require_budget
from app.jobs.events import list_after
from app.jobs.funding import fund, resume_funded
from app.jobs.states import Stage, Status
from app.store.session import Store
from app.store.tables import ApiKey, Job, Org
from tests.rows import CATALOG, give_credit, make_job, make_key, make_org

pytestmark = pytest.mark.anyio

BUDGET = 10_000
SECOND_MICROS = 100  # of the CPU


@pytest.fixture(params=["org", "key"])
async def owner(store: Store, request: pytest.FixtureRequest) -> tuple[Org, str]:
    """An organisation and a key of it, one of which has a budget."""
    async with store.begin() as session:
        org = await make_org(session)
        await give_credit(session, org.id)
        await make_key(session, org)
        key_id = (await session.scalars(ApiKey.__table__.select())).one()
        table: type[Org | ApiKey] = Org if request.param == "org" else ApiKey
        await session.execute(update(table).values(monthly_budget_micros=BUDGET))
    return org, key_id


async def new_job(store: Store, owner: tuple[Org, str], **changes: Any) -> str:
    async with store.begin() as session:
        job = await make_job(session, owner[0], key_id=owner[1], **changes)
        await queue.enqueue(session, job)
    return job.id


async def is_within_budget(store: Store, job_id: str) -> bool:
    async with store.begin() as session:
        try:
            await require_budget(session, await session.get_one(Job, job_id))
        except BudgetSpent:
            return False
    return True


async def charge(store: Store, owner: tuple[Org, str], micros: int) -> None:
    entry = Entry(org_id=owner[0].id, key_id=owner[1], source="r", kind="inference", amount_micros=-micros)
    async with store.begin() as session:
        await append(session, entry)


@pytest.mark.parametrize(
    ("spent", "others", "expected", "fits"),
    [
        (0, 0, 10_000, True),
        (0, 0, 10_001, False),
        (4000, 0, 6000, True),
        (4000, 0, 6001, False),
        (4000, 3000, 3000, True),
        (4000, 3000, 3001, False),
        (10_000, 0, 0, False),
    ],
)
async def test_a_job_is_refused_that_would_pass_the_budget_with_what_others_cost(
    store: Store, owner: tuple[Org, str], spent: int, others: int, expected: int, fits: bool
) -> None:
    await charge(store, owner, spent)
    await new_job(store, owner, estimated_micros=others)
    job_id = await new_job(store, owner, estimated_micros=expected)
    assert await is_within_budget(store, job_id) is fits


async def test_a_running_job_waits_where_the_budget_ends_and_goes_on_when_it_is_raised(
    store: Store, owner: tuple[Org, str]
) -> None:
    job_id = await new_job(store, owner, estimated_micros=BUDGET)
    assert await run(store, job_id, gpu_seconds=20)
    async with store.read() as session:  # to be charged when it ends, and counted now
        used = await used_this_month(session, owner[0].id, owner[1])
        assert 20 * SECOND_MICROS <= used <= 22 * SECOND_MICROS
    assert not await run(store, job_id, gpu_seconds=79)
    async with store.begin() as session:
        job = await session.get_one(Job, job_id)
        assert (job.status, job.waits_for_credit) == (Status.PAUSED, True)
        assert "budget" in (await list_after(session, job_id, 0, limit=10))[-1].message
        await resume_funded(session, CATALOG, lease_seconds=1)
    async with store.begin() as session:
        assert (await session.get_one(Job, job_id)).status == Status.PAUSED
        for table in (Org, ApiKey):
            await session.execute(update(table).values(monthly_budget_micros=10 * BUDGET))
        await resume_funded(session, CATALOG, lease_seconds=1)
    async with store.begin() as session:
        job = await session.get_one(Job, job_id, populate_existing=True)
        assert job.status == Status.QUEUED
        await queue.cancel(session, CATALOG, job)
    async with store.read() as session:
        [charged] = [e for e in await list_entries(session, owner[0].id) if e.kind == "training"]
        assert (charged.key_id, -charged.amount_micros) == (owner[1], 99 * SECOND_MICROS)
        assert await used_this_month(session, owner[0].id, owner[1]) == 99 * SECOND_MICROS


async def run(store: Store, job_id: str, *, gpu_seconds: float) -> bool:
    """Whether it may go on after that."""
    async with store.begin() as session:
        claimed = await queue.claim(session, "worker", Stage.TRAIN, lease_seconds=1)
        lease = claimed[1] if claimed else queue.Lease(job_id, (await session.get_one(Job, job_id)).lease_token)
        await queue.use_gpus(session, lease, gpu_seconds)
        job = await session.get_one(Job, job_id, populate_existing=True)
        return await fund(session, CATALOG, job, lease_seconds=1)
