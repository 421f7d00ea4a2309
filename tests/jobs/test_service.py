"""Jobs and what they refer to: created once, and on nothing that is deleted under them."""

import asyncio

import pytest
from sqlalchemy import func, select, update

from app.billing.budgets import BudgetSpent
from app.billing.ledger import Entry, append
from app.catalog.names import adapter_id, fine_tuned_name
from app.catalog.resolve import UnknownModel
from app.catalog.spec import GpuChoice
from app.files.service import InvalidTrainingFile, UnknownFile, mark_deleted
from app.ids import new_id
from app.jobs import queue
from app.jobs.schemas import JobCreate
from app.jobs.service import ModelInUse, create_job, mark_model_deleted
from app.jobs.states import Stage, Status
from app.store.session import Store
from app.store.tables import Adapter, File, Job, Org
from tests.rows import CATALOG, key_of, make_file, make_job, make_org

pytestmark = pytest.mark.anyio


async def tenant(store: Store) -> tuple[Org, File]:
    async with store.begin() as session:
        org = await make_org(session)
        await append(session, Entry(org_id=org.id, source=new_id("credit"), kind="credit", amount_micros=10**9))
        return org, await make_file(session, org)


async def fine_tune(store: Store, org: Org) -> Adapter:
    async with store.begin() as session:
        job = await make_job(session, org, status=Status.SUCCEEDED, stage=Stage.PUBLISH)
        names = {"id": adapter_id(job.id), "name": fine_tuned_name(job)}
        adapter = Adapter(org_id=org.id, job_id=job.id, base_model=job.base_model, **names)
        session.add(adapter)
        return adapter


async def create(store: Store, org: Org, file: File, *, model: str = "test/a", key: str | None = None) -> Job:
    asked = JobCreate.model_validate({"model": model, "training_file": file.id, "seed": 1})
    async with store.begin() as session:
        gpu = GpuChoice.parse("CPU")
        return await create_job(session, CATALOG, key_of(org), asked, gpu=gpu, idempotency_key=key)


async def delete_model(store: Store, adapter: Adapter) -> None:
    async with store.begin() as session:
        await mark_model_deleted(session, await session.get_one(Adapter, adapter.id))


async def delete_file(store: Store, org: Org, file: File) -> bool:
    async with store.begin() as session:
        return await mark_deleted(session, org.id, file.id)


async def count_jobs(store: Store) -> int:
    async with store.read() as session:
        return await session.scalar(select(func.count()).select_from(Job)) or 0


async def test_posts_that_come_at_once_under_one_key_make_one_job(store: Store) -> None:
    org, file = await tenant(store)
    jobs = await asyncio.gather(*(create(store, org, file, key="once") for _ in range(4)))
    assert len({job.id for job in jobs}) == 1
    assert await count_jobs(store) == 1


async def test_a_post_that_was_refused_can_be_repeated_under_its_key(store: Store) -> None:
    org, file = await tenant(store)
    async with store.begin() as session:
        (await session.get_one(File, file.id)).status = "error"
    with pytest.raises(InvalidTrainingFile):
        await create(store, org, file, key="again")
    async with store.begin() as session:
        (await session.get_one(File, file.id)).status = "processed"
    assert (await create(store, org, file, key="again")).status == Status.QUEUED


async def test_a_model_stays_while_a_job_continues_from_it(store: Store) -> None:
    org, file = await tenant(store)
    model = await fine_tune(store, org)
    job = await create(store, org, file, model=model.name)
    with pytest.raises(ModelInUse, match=job.id):
        await delete_model(store, model)
    async with store.begin() as session:
        await queue.cancel(session, CATALOG, job)
    await delete_model(store, model)
    with pytest.raises(UnknownModel):
        await create(store, org, file, model=model.name)


@pytest.mark.parametrize("n_round", range(4))
async def test_no_job_begins_on_a_model_or_a_file_that_is_deleted_meanwhile(store: Store, n_round: int) -> None:
    org, file = await tenant(store)
    model = await fine_tune(store, org)
    creating = create(store, org, file, model=model.name)
    deleting = delete_model(store, model) if n_round % 2 else delete_file(store, org, file)
    both = (creating, deleting) if n_round < 2 else (deleting, creating)
    ends = await asyncio.gather(*both, return_exceptions=True)
    created, deleted = ends if n_round < 2 else ends[::-1]
    if isinstance(created, Job):
        assert isinstance(deleted, ModelInUse) if n_round % 2 else deleted is False
    else:
        assert isinstance(created, UnknownModel if n_round % 2 else UnknownFile)
        assert deleted in (None, True)


async def test_a_job_is_of_the_key_that_asks_and_within_its_organisations_budget(store: Store) -> None:
    org, file = await tenant(store)
    assert (await create(store, org, file)).key_id == "key"
    async with store.begin() as session:
        await session.execute(update(Org).where(Org.id == org.id).values(monthly_budget_micros=0))
    with pytest.raises(BudgetSpent):
        await create(store, org, file)
