"""What an owner does to a job: in every state, and while others do something else to it."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import combinations_with_replacement

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import queue
from app.jobs.queue import Lease, LeaseLost, WrongState
from app.jobs.states import EventType, Stage, Status
from app.store.session import Store
from app.store.tables import Job
from tests.jobs.test_queue import TERMINAL, add_job, claim, event_types, get_job, must_claim
from tests.rows import CATALOG, make_job, make_org

pytestmark = pytest.mark.anyio

Act = Callable[[AsyncSession, Job, Lease], Awaitable[None]]

OWNERS: dict[str, Act] = {
    "cancel": lambda session, job, _: queue.cancel(session, CATALOG, job),
    "pause": lambda session, job, _: queue.pause(session, job),
    "resume": lambda session, job, _: queue.resume(session, job),
}
HOLDERS: dict[str, Act] = {
    "succeed": lambda session, _, lease: queue.succeed(session, lease, CATALOG, result_files=[]),
    "fail": lambda session, _, lease: queue.fail(session, lease, code="x", message="x"),
    "hand over": lambda session, _, lease: queue.hand_over(session, lease),
    "give back": lambda session, _, lease: queue.give_back(session, lease),
    "retry later": lambda session, _, lease: queue.retry_later(session, lease, after_seconds=60),
    "heartbeat": lambda session, _, lease: queue.heartbeat(session, lease, lease_seconds=60),
}
ACTS = {**OWNERS, **HOLDERS}


async def act(store: Store, name: str, lease: Lease) -> bool:
    """Whether it was accepted."""
    try:
        async with store.begin() as session:
            await ACTS[name](session, await session.get_one(Job, lease.job_id), lease)
    except (WrongState, LeaseLost):
        return False
    return True


@pytest.mark.parametrize(
    ("status", "stage", "cancel", "pause", "resume"),
    [
        ("validating_files", "train", "cancelled", None, None),
        ("queued", "train", "cancelled", "paused", None),
        ("running", "train", "cancelled", "paused", None),
        ("running", "publish", "cancelled", "paused", None),
        ("paused", "train", "cancelled", None, "queued"),
        ("succeeded", "publish", None, None, None),
        ("failed", "train", None, None, None),
        ("cancelled", "train", None, None, None),
    ],
)
async def test_what_an_owner_can_do_in_each_state(
    store: Store, status: str, stage: str, cancel: str | None, pause: str | None, resume: str | None
) -> None:
    for name, becomes in {"cancel": cancel, "pause": pause, "resume": resume}.items():
        job_id = await add_job(store, status=status, stage=stage)
        assert await act(store, name, Lease(job_id, 0)) == (becomes is not None), name
        job = await get_job(store, job_id)
        assert job.status == (becomes or status), name
        assert (job.lease_holder, job.lease_token) == (None, 1 if becomes else 0)
        assert len(await event_types(store, job_id)) == (1 if becomes else 0)


@pytest.mark.parametrize(
    ("one", "other"), [pair for pair in combinations_with_replacement(ACTS, 2) if pair[0] in OWNERS]
)
async def test_two_who_act_at_once_leave_a_job_that_makes_sense(store: Store, one: str, other: str) -> None:
    for acts in ((one, other), (other, one)):
        job_id = await add_job(store)
        lease = await must_claim(store)
        accepted = await asyncio.gather(*(act(store, name, lease) for name in acts))
        done = {name for name, was_accepted in zip(acts, accepted, strict=True) if was_accepted}
        job, types = await get_job(store, job_id), await event_types(store, job_id)
        assert done or set(acts) == {"resume"}, "one of them came first"
        assert len([type_ for type_ in types if type_ in TERMINAL]) == Status(job.status).is_final
        if "cancel" in done:
            assert job.status == Status.CANCELLED
        if Status(job.status).is_final:
            assert not any([await act(store, name, lease) for name in ACTS]), "what is final stays"
            assert (job.finished_at is not None, job.lease_holder) == (True, None)
            continue
        if "pause" in done and "resume" not in done:
            assert (job.status, await claim(store)) == (Status.PAUSED, None)
        assert await act(store, "cancel", lease)  # and it is not in the way of the next round


async def test_a_job_that_is_paused_while_it_is_published_is_published_again(store: Store) -> None:
    job_id = await add_job(store, status=Status.RUNNING, stage=Stage.PUBLISH)
    await must_claim(store, Stage.PUBLISH)
    assert await act(store, "pause", Lease(job_id, 0))
    assert await act(store, "resume", Lease(job_id, 0))
    lease = await must_claim(store)
    assert await act(store, "hand over", lease)
    assert await act(store, "succeed", await must_claim(store, Stage.PUBLISH))


async def test_the_jobs_of_an_organisation_that_goes_are_cancelled_and_no_others(store: Store) -> None:
    async with store.begin() as session:
        going, staying = await make_org(session, "going"), await make_org(session, "staying")
        statuses = {status: (await make_job(session, going, status=status)).id for status in Status}
        other = (await make_job(session, staying)).id
    async with store.begin() as session:
        await queue.cancel_all(session, CATALOG, going.id)
    for status, job_id in statuses.items():
        is_over = status.is_final
        assert (await get_job(store, job_id)).status == (status if is_over else Status.CANCELLED)
        assert await event_types(store, job_id) == ([] if is_over else [EventType.CANCELLED])
    assert (await get_job(store, other)).status == Status.QUEUED
