"""The queue under races: one holder at a time, terminal states are final, nothing is charged twice."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import ledger
from app.catalog.names import adapter_id, fine_tuned_name
from app.ids import new_id
from app.jobs import queue
from app.jobs.events import list_after
from app.jobs.queue import Lease, LeaseLost, WrongState
from app.jobs.states import EventType, Stage, Status
from app.store.session import Store
from app.store.tables import Adapter, Job, LedgerEntry
from tests.rows import CATALOG, make_job, make_org

pytestmark = pytest.mark.anyio

TERMINAL = {EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED}


async def add_job(store: Store, **changes: Any) -> str:
    async with store.begin() as session:
        return (await make_job(session, **changes)).id


async def claim(store: Store, holder: str = "w", stage: Stage = Stage.TRAIN, *, seconds: float = 60) -> Lease | None:
    async with store.begin() as session:
        claimed = await queue.claim(session, holder, stage, lease_seconds=seconds)
        return claimed[1] if claimed else None


async def must_claim(store: Store, stage: Stage = Stage.TRAIN, *, seconds: float = 60) -> Lease:
    lease = await claim(store, stage=stage, seconds=seconds)
    assert lease
    return lease


async def get_job(store: Store, job_id: str) -> Job:
    async with store.read() as session:
        return await session.get_one(Job, job_id)


async def event_types(store: Store, job_id: str) -> list[str]:
    async with store.read() as session:
        events = await list_after(session, job_id, 0, limit=1000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.event_type for event in events]


async def cancel(store: Store, job_id: str) -> None:
    async with store.begin() as session:
        await queue.cancel(session, CATALOG, await session.get_one(Job, job_id))


async def pause(store: Store, job_id: str) -> None:
    async with store.begin() as session:
        await queue.pause(session, await session.get_one(Job, job_id))


async def resume(store: Store, job_id: str) -> None:
    async with store.begin() as session:
        await queue.resume(session, await session.get_one(Job, job_id))


async def succeed(store: Store, lease: Lease) -> None:
    async with store.begin() as session:
        await queue.succeed(session, lease, CATALOG, result_files=[])


async def use_gpus(store: Store, lease: Lease, seconds: float) -> None:
    async with store.begin() as session:
        await queue.use_gpus(session, lease, seconds)


WRITES: dict[str, Callable[[AsyncSession, Lease], Awaitable[None]]] = {
    "heartbeat": lambda s, lease: queue.heartbeat(s, lease, lease_seconds=60, metrics_offset=999),
    "use_gpus": lambda s, lease: queue.use_gpus(s, lease, 999.0),
    "hand_over": queue.hand_over,
    "give_back": queue.give_back,
    "retry_later": lambda s, lease: queue.retry_later(s, lease, after_seconds=1),
    "defer": lambda s, lease: queue.defer(s, lease, after_seconds=1),
    "succeed": lambda s, lease: queue.succeed(s, lease, CATALOG, result_files=["x"]),
    "fail": lambda s, lease: queue.fail(s, lease, code="x", message="late"),
    "check_lease": queue.check_lease,
}


async def taken_over(store: Store, lease: Lease) -> None:
    """The lease runs out, and somebody else claims the job."""
    async with store.begin() as session:
        await session.execute(update(Job).values(lease_expires_at=0.0))
    other = await must_claim(store)
    assert other.token > lease.token


async def paused_and_claimed_again(store: Store, lease: Lease) -> None:
    await pause(store, lease.job_id)
    await resume(store, lease.job_id)
    await must_claim(store)


async def handed_over(store: Store, lease: Lease) -> None:
    async with store.begin() as session:
        await queue.hand_over(session, lease)


async def put_off(store: Store, lease: Lease) -> None:
    async with store.begin() as session:
        await queue.retry_later(session, lease, after_seconds=60)


async def given_back(store: Store, lease: Lease) -> None:
    async with store.begin() as session:
        await queue.give_back(session, lease)


LOSSES: dict[str, Callable[[Store, Lease], Awaitable[None]]] = {
    "taken over": taken_over,
    "paused": lambda store, lease: pause(store, lease.job_id),
    "paused and claimed again": paused_and_claimed_again,
    "cancelled": lambda store, lease: cancel(store, lease.job_id),
    "succeeded": succeed,
    "handed over": handed_over,
    "put off": put_off,
    "given back": given_back,
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_holder_that_lost_its_lease_changes_nothing(store: Store, loss: str) -> None:
    job_id = await add_job(store)
    lease = await must_claim(store)
    await LOSSES[loss](store, lease)
    before = await snapshot(store, job_id)
    for name, write in WRITES.items():
        with pytest.raises(LeaseLost):
            async with store.begin() as session:
                await write(session, lease)
        assert await snapshot(store, job_id) == before, name


async def snapshot(store: Store, job_id: str) -> dict[str, Any]:
    async with store.read() as session:
        job = await session.get_one(Job, job_id)
        entries = list(await session.scalars(select(LedgerEntry.id)))
    kept = {column.key: getattr(job, column.key) for column in Job.__table__.columns}
    return {**kept, "events": await event_types(store, job_id), "entries": entries}


@pytest.mark.parametrize("n_round", range(3))
async def test_two_workers_never_claim_the_same_job(store_url: str, n_round: int) -> None:
    stores = [Store(store_url) for _ in range(3)]
    jobs = {await add_job(stores[0]) for _ in range(8)}
    leases = await asyncio.gather(*(claim(stores[n % 3], f"worker {n}") for n in range(20)))
    # On PostgreSQL a claimer may find the oldest free job taken under its hand: it comes again.
    while late := await claim(stores[0], "late"):
        leases.append(late)
    got = [lease.job_id for lease in leases if lease]
    assert sorted(got) == sorted(jobs)
    for job_id in jobs:
        job = await get_job(stores[0], job_id)
        assert (job.attempts, job.lease_token, job.status) == (1, 1, Status.RUNNING)
    for store in stores:
        await store.close()


async def test_an_abandoned_job_is_claimed_by_one_of_many(store: Store) -> None:
    job_id = await add_job(store)
    await must_claim(store, seconds=-1)
    leases = [lease for lease in await asyncio.gather(*(claim(store, f"w{n}") for n in range(10))) if lease]
    assert [(lease.job_id, lease.token) for lease in leases] == [(job_id, 2)]


async def test_jobs_are_claimed_oldest_first_by_who_can_run_them(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        for position, gpu in enumerate(["A100", "CPU", "CPU"]):
            await make_job(session, org, id=new_id("ftjob"), gpu=gpu, created_at=float(position), suffix=str(position))
    got = []
    for gpus in (["CPU"], ["CPU", "A100"], ["H100"], ["CPU"]):
        async with store.begin() as session:
            claimed = await queue.claim(session, "w", Stage.TRAIN, lease_seconds=60, among=Job.gpu.in_(gpus))
            got.append(claimed[0].suffix if claimed else None)
    assert got == ["1", "0", None, "2"]


async def test_only_a_job_whose_lease_has_run_out_can_be_taken_over(store: Store) -> None:
    await add_job(store)
    lease = await must_claim(store)
    assert await claim(store) is None
    async with store.begin() as session:
        await queue.heartbeat(session, lease, lease_seconds=-1)
    assert await claim(store) is not None


@pytest.mark.parametrize("status", [Status.PAUSED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
async def test_what_is_paused_or_over_is_never_claimed(store: Store, status: Status) -> None:
    await add_job(store, status=status, lease_expires_at=0.0)
    assert await claim(store) is None
    assert await claim(store, stage=Stage.PUBLISH) is None


async def test_a_trained_job_is_for_publishers_only(store: Store) -> None:
    job_id = await add_job(store)
    async with store.begin() as session:
        await queue.hand_over(session, await must_claim_in(session))
    assert await claim(store) is None
    lease = await must_claim(store, Stage.PUBLISH)
    await succeed(store, lease)
    job = await get_job(store, job_id)
    assert (job.status, job.fine_tuned_model) == (Status.SUCCEEDED, f"ft:test/a:{job_id}")
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at


async def must_claim_in(session: AsyncSession) -> Lease:
    claimed = await queue.claim(session, "w", Stage.TRAIN, lease_seconds=60)
    assert claimed
    return claimed[1]


async def test_a_job_given_back_does_not_count_as_an_attempt(store: Store) -> None:
    job_id = await add_job(store)
    await given_back(store, await must_claim(store))
    await must_claim(store)
    assert (await get_job(store, job_id)).attempts == 1


async def test_a_job_put_off_is_claimed_when_its_time_has_come(store: Store) -> None:
    job_id = await add_job(store)
    await put_off(store, await must_claim(store))
    assert await claim(store) is None
    async with store.begin() as session:
        await session.execute(update(Job).values(lease_expires_at=0.0))
    await must_claim(store)
    assert (await get_job(store, job_id)).attempts == 2


@pytest.mark.parametrize("n_round", range(4))
async def test_a_cancel_that_was_accepted_never_ends_in_success(store: Store, n_round: int) -> None:
    job_id = await add_job(store, trained_tokens=1000)
    await use_gpus(store, await must_claim(store, seconds=-1), 100.0)
    lease = await must_claim(store)
    both = (succeed(store, lease), cancel(store, job_id))
    ends = await asyncio.gather(*(both if n_round % 2 else both[::-1]), return_exceptions=True)
    accepted = ends[1 if n_round % 2 else 0] is None
    job, types = await get_job(store, job_id), await event_types(store, job_id)
    assert job.status == (Status.CANCELLED if accepted else Status.SUCCEEDED)
    assert [end for end in ends if end and not isinstance(end, (LeaseLost, WrongState))] == []
    assert len([end for end in ends if end]) == 1
    assert len(TERMINAL & set(types)) == len([t for t in types if t in TERMINAL]) == 1
    async with store.read() as session:
        adapters = list(await session.scalars(select(Adapter)))
        entries = list(await session.scalars(select(LedgerEntry)))
    assert (len(adapters), job.fine_tuned_model is None) == ((0, True) if accepted else (1, False))
    # 1,000 tokens at 4 $ a million, and 100 s at 0.36 $ an hour.
    assert [(e.source, e.amount_micros) for e in entries] == [(f"job:{job_id}", -(4_000 + 10_000))]


async def test_of_many_cancels_one_is_accepted(store: Store) -> None:
    job_id = await add_job(store)
    ends = await asyncio.gather(*(cancel(store, job_id) for _ in range(6)), return_exceptions=True)
    assert [type(end) for end in ends if end] == [WrongState] * 5
    assert await event_types(store, job_id) == [EventType.CANCELLED]


async def test_a_pause_that_races_a_cancel_does_not_bring_the_job_back(store: Store) -> None:
    job_id = await add_job(store)
    await must_claim(store)
    await asyncio.gather(pause(store, job_id), cancel(store, job_id), return_exceptions=True)
    assert (await get_job(store, job_id)).status == Status.CANCELLED
    with pytest.raises(WrongState):
        await resume(store, job_id)
    assert await claim(store) is None


async def test_a_job_that_never_ran_is_cancelled_without_a_charge(store: Store) -> None:
    await cancel(store, await add_job(store))
    async with store.read() as session:
        assert list(await session.scalars(select(LedgerEntry))) == []


async def test_a_job_that_fails_says_why_and_is_not_charged(store: Store) -> None:
    job_id = await add_job(store, trained_tokens=5)
    lease = await must_claim(store)
    await use_gpus(store, lease, 10.0)
    async with store.begin() as session:
        await queue.fail(session, lease, code="loss_not_finite", message="why")
    job = await get_job(store, job_id)
    assert (job.status, job.error) == (
        Status.FAILED,
        {"code": "loss_not_finite", "message": "why", "param": None},
    )
    async with store.read() as session:
        assert await ledger.list_entries(session, job.org_id) == []
    with pytest.raises(WrongState):
        await cancel(store, job_id)


async def test_what_a_job_used_adds_up_over_its_holders(store: Store) -> None:
    job_id = await add_job(store)
    for _ in range(3):
        lease = await must_claim(store, seconds=-1)
        await asyncio.gather(*(use_gpus(store, lease, 0.5) for _ in range(4)))
    assert (await get_job(store, job_id)).gpu_seconds == 6.0


async def test_a_fine_tune_is_named_after_its_base_suffix_and_job(store: Store) -> None:
    async with store.begin() as session:
        job = await make_job(session, suffix="mine")
    assert fine_tuned_name(job) == f"ft:test/a:mine:{job.id}"
    assert adapter_id(job.id) == job.id.replace("ftjob-", "adapter_")
