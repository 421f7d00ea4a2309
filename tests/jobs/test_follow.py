"""Following a job: all that was, then what comes, and an end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import event as sqlalchemy_event

from app import sse
from app.jobs import queue
from app.jobs.events import record
from app.jobs.follow import BATCH, Followers, follow
from app.jobs.states import EventType
from app.store.session import Store
from app.store.tables import Job
from tests.eventually import eventually
from tests.rows import CATALOG, make_job
from tests.stores import crash_and_restart

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


@asynccontextmanager
async def running(
    store: Store, *, poll_seconds: float = 0.02, keep_alive_seconds: float = 60.0
) -> AsyncIterator[Followers]:
    followers = Followers(store, poll_seconds=poll_seconds, keep_alive_seconds=keep_alive_seconds)
    looking = asyncio.create_task(followers.run())
    yield followers
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


@pytest.fixture
async def followers(store: Store) -> AsyncIterator[Followers]:
    async with running(store) as followers:
        yield followers


class Reader:
    """Follows a job, and knows what it was told so far."""

    def __init__(self, followers: Followers, job_id: str) -> None:
        self.told: list[str] = []
        self._reading = asyncio.create_task(self._read(follow(followers, job_id, after_seq=0)))

    async def _read(self, stream: AsyncIterator[bytes]) -> None:
        async for chunk in stream:
            if chunk not in (sse.KEEP_ALIVE, sse.DONE):
                self.told.append(orjson.loads(chunk.partition(b"data: ")[2])["message"])

    async def has_heard(self, message: str, *, within_seconds: float) -> None:
        await eventually(lambda: message in self.told, within_seconds=within_seconds)

    async def ended(self) -> list[str]:
        await asyncio.wait_for(self._reading, 10)
        return self.told


async def test_the_past_comes_first_then_the_present_then_the_end(store: Store, followers: Followers) -> None:
    job_id = await new_job(store)
    await tell(store, job_id, "1", "2")
    reading = asyncio.create_task(messages(follow(followers, job_id, after_seq=0)))
    for n in range(3, 8):
        await tell(store, job_id, str(n))
    await end(store, job_id)
    assert await reading == ["1", "2", "3", "4", "5", "6", "7", "The job was cancelled"]


async def test_a_stream_goes_on_where_another_was_cut(store: Store, followers: Followers) -> None:
    job_id = await new_job(store)
    await tell(store, job_id, "1", "2", "3")
    await end(store, job_id)
    assert await messages(follow(followers, job_id, after_seq=2)) == ["3", "The job was cancelled"]


async def test_a_quiet_job_is_kept_alive(store: Store) -> None:
    async with running(store, keep_alive_seconds=0.01) as followers:
        stream = follow(followers, await new_job(store), after_seq=0)
        assert [await anext(stream) for _ in range(2)] == [sse.KEEP_ALIVE] * 2
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_long_history_comes_whole(store: Store, followers: Followers) -> None:
    job_id = await new_job(store)
    await tell(store, job_id, *map(str, range(BATCH + 5)))
    await end(store, job_id)
    assert len(await messages(follow(followers, job_id, after_seq=0))) == BATCH + 6


async def test_who_reads_slowly_misses_nothing(store: Store, followers: Followers) -> None:
    """What the others have long heard is no longer at hand, and read again."""
    job_id = await new_job(store)
    await tell(store, job_id, "first")
    slow, quick = follow(followers, job_id, after_seq=0), Reader(followers, job_id)
    assert b"first" in await anext(slow)
    for begin in range(0, 2 * BATCH, BATCH):
        await tell(store, job_id, *map(str, range(begin, begin + BATCH)))
        await quick.has_heard(str(begin + BATCH - 1), within_seconds=10)
    await end(store, job_id)
    expected = [*map(str, range(2 * BATCH)), "The job was cancelled"]
    assert await messages(slow) == expected
    assert await quick.ended() == ["first", *expected]


async def test_many_followers_cost_as_many_queries_as_one(store: Store, store_url: str) -> None:
    writer, queries = Store(store_url), 0

    def count(*_: Any) -> None:
        nonlocal queries
        queries += 1

    job_id = await new_job(writer)
    async with running(store, poll_seconds=0.1) as followers:
        readers = [Reader(followers, job_id) for _ in range(200)]
        await tell(writer, job_id, "ready")
        for reader in readers:
            await reader.has_heard("ready", within_seconds=10)
        began_at = time.monotonic()
        sqlalchemy_event.listen(store.engine.sync_engine, "before_cursor_execute", count)
        for n in range(5):
            await tell(writer, job_id, str(n))
            for reader in readers:
                await reader.has_heard(str(n), within_seconds=1)
        await end(writer, job_id)
        for reader in readers:
            assert await reader.ended() == ["ready", *"01234", "The job was cancelled"]
    n_ticks = (time.monotonic() - began_at) / 0.1
    assert 6 <= queries <= 2 * (n_ticks + 6) + 2
    await writer.close()


async def test_who_follows_no_more_costs_nothing(store: Store) -> None:
    async with running(store) as followers:
        stream = followers.events(await new_job(store), after_seq=0)
        following = asyncio.create_task(anext(stream))
        await eventually(lambda: followers._feeds)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert followers._feeds == {}


async def test_postgresql_tells_at_once_what_is_new_also_after_a_restart(restartable: tuple[Path, str]) -> None:
    folder, url = restartable
    store, writer = Store(url), Store(url)
    job_id = await new_job(writer)
    async with running(store, poll_seconds=60) as followers:
        reader = Reader(followers, job_id)
        await eventually(lambda: followers._listener.hears)
        await tell(writer, job_id, "before")
        await reader.has_heard("before", within_seconds=1)
        await asyncio.to_thread(crash_and_restart, folder)
        await tell(writer, job_id, "while nobody listens")
        await reader.has_heard("while nobody listens", within_seconds=10)
        await eventually(lambda: followers._listener.hears)
        await tell(writer, job_id, "after")
        await reader.has_heard("after", within_seconds=1)
        await end(writer, job_id)
        assert (await reader.ended())[-1] == "The job was cancelled"
    for each in (store, writer):
        await each.close()
