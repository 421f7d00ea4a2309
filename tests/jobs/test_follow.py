"""Following a job: all that was, then what comes, and an end."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from app import sse
from app.jobs import queue
from app.jobs.events import record
from app.jobs.follow import BATCH, follow
from app.jobs.states import EventType
from app.store.session import Store
from app.store.tables import Job
from tests.rows import CATALOG, make_job

pytestmark = pytest.mark.anyio


async def tell(store: Store, job_id: str, *messages: str) -> None:
    async with store.begin() as session:
        for message in messages:
            await record(session, job_id, EventType.PROGRESS, message)


async def end(store: Store, job_id: str) -> None:
    async with store.begin() as session:
        await queue.cancel(session, CATALOG, await session.get_one(Job, job_id))


async def new_job(store: Store) -> str:
    async with store.begin() as session:
        return (await make_job(session)).id


async def messages(stream: AsyncIterator[bytes]) -> list[str]:
    chunks = [chunk async for chunk in stream if chunk != sse.KEEP_ALIVE]
    assert chunks[-1] == sse.DONE
    return [orjson.loads(chunk.partition(b"data: ")[2])["message"] for chunk in chunks[:-1]]


async def test_the_past_comes_first_then_the_present_then_the_end(store: Store) -> None:
    job_id = await new_job(store)
    await tell(store, job_id, "1", "2")
    stream = follow(store, job_id, after_seq=0, poll_seconds=0.01)
    reading = asyncio.create_task(messages(stream))
    for n in range(3, 8):
        await tell(store, job_id, str(n))
    await end(store, job_id)
    assert await reading == ["1", "2", "3", "4", "5", "6", "7", "The job was cancelled"]


async def test_a_stream_goes_on_where_another_was_cut(store: Store) -> None:
    job_id = await new_job(store)
    await tell(store, job_id, "1", "2", "3")
    await end(store, job_id)
    assert await messages(follow(store, job_id, after_seq=2, poll_seconds=60)) == ["3", "The job was cancelled"]


async def test_a_quiet_job_is_kept_alive(store: Store) -> None:
    stream = follow(store, await new_job(store), after_seq=0, poll_seconds=0.01)
    assert [await anext(stream) for _ in range(2)] == [sse.KEEP_ALIVE] * 2
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_long_history_comes_whole(store: Store) -> None:
    job_id = await new_job(store)
    await tell(store, job_id, *map(str, range(BATCH + 5)))
    await end(store, job_id)
    assert len(await messages(follow(store, job_id, after_seq=0, poll_seconds=60))) == BATCH + 6
