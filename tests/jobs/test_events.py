"""A job's history is numbered densely, however many write it."""

import asyncio

import pytest

from app.jobs.events import list_after, record
from app.jobs.states import EventType
from app.store.session import Store
from app.store.tables import Job
from tests.rows import make_job

pytestmark = pytest.mark.anyio


async def test_numbers_are_dense_when_many_write_at_once(store: Store) -> None:
    async with store.begin() as session:
        jobs = [(await make_job(session)).id for _ in range(2)]

    async def write(n: int) -> None:
        async with store.begin() as session:
            await record(session, jobs[n % 2], EventType.PROGRESS, f"event {n}")

    await asyncio.gather(*(write(n) for n in range(24)))
    async with store.read() as session:
        for job_id in jobs:
            events = await list_after(session, job_id, 0, limit=100)
            assert [event.seq for event in events] == list(range(1, 13))
            assert (await session.get_one(Job, job_id)).last_seq == 12


async def test_an_event_whose_transaction_failed_leaves_no_gap(store: Store) -> None:
    async with store.begin() as session:
        job_id = (await make_job(session)).id
    failing = store.begin()
    session = await failing.__aenter__()
    await record(session, job_id, EventType.PROGRESS, "lost")
    await failing.__aexit__(LookupError, LookupError(), None)
    async with store.begin() as session:
        await record(session, job_id, EventType.PROGRESS, "kept")
    async with store.read() as session:
        assert [(e.seq, e.message) for e in await list_after(session, job_id, 0, limit=9)] == [(1, "kept")]


@pytest.mark.parametrize(
    ("event_type", "type_"),
    [(EventType.PROGRESS, "metrics"), (EventType.VALIDATION, "metrics"), (EventType.CHECKPOINT, "message")],
)
async def test_events_with_figures_are_metrics(store: Store, event_type: EventType, type_: str) -> None:
    async with store.begin() as session:
        job_id = (await make_job(session)).id
        await record(session, job_id, event_type, "m", level="warn", data={"step": 1})
    async with store.read() as session:
        [event] = await list_after(session, job_id, 0, limit=9)
    assert (event.type, event.level, event.data) == (type_, "warn", {"step": 1})


async def test_a_page_begins_after_a_number(store: Store) -> None:
    async with store.begin() as session:
        job_id = (await make_job(session)).id
        for n in range(5):
            await record(session, job_id, EventType.PROGRESS, str(n))
    async with store.read() as session:
        assert [e.seq for e in await list_after(session, job_id, 2, limit=2)] == [3, 4]
