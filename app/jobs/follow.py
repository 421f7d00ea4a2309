"""Jobs' events as they happen, to any number of followers for the price of one."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from app import sse
from app.jobs.events import CHANNEL, list_after
from app.jobs.schemas import EventOut
from app.jobs.states import Status
from app.store.notices import Listener
from app.store.session import Store
from app.store.tables import Job, JobEvent

log = structlog.get_logger()

BATCH = 500
POLLS_WHILE_LISTENING = 10  # the database tells what is new; we look all the same, but seldom


class Feed:
    """One job: how far its history is known, and the end of it for those who follow."""

    def __init__(self) -> None:
        self.n_followers = 0
        self.seq: int | None = None  # not known yet
        self.is_over = False
        self.news = asyncio.Event()
        self._recent: deque[JobEvent] = deque(maxlen=BATCH)

    def tell(self, seq: int, events: Sequence[JobEvent], *, is_over: bool) -> None:
        """Up to `seq` the history is known now."""
        has_news = (seq, is_over) != (self.seq, self.is_over)
        self._recent.extend(events)
        self.seq, self.is_over = seq, is_over
        if has_news:
            told, self.news = self.news, asyncio.Event()
            told.set()

    def has_told(self, seq: int) -> bool:
        return self.is_over and self.seq is not None and seq >= self.seq

    def after(self, seq: int) -> list[JobEvent] | None:
        """What is known past `seq`; None where that has to be read again, since we hold only the end."""
        if self.seq is None or seq >= self.seq:
            return []
        if not self._recent or self._recent[0].seq > seq + 1:
            return None
        return [event for event in self._recent if event.seq > seq]


class Followers:
    """All jobs that this process follows. One query a tick looks at them together; who joins reads the past alone."""

    def __init__(self, store: Store, *, poll_seconds: float, keep_alive_seconds: float) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._feeds: dict[str, Feed] = {}
        self._look_now = asyncio.Event()
        self._listener = Listener(store, CHANNEL, self._hear)

    async def run(self) -> None:
        """Until cancelled; without it nobody hears any news."""
        listening = asyncio.create_task(self._listener.run())
        try:
            while True:
                await self._until_due()
                try:
                    await self._look()
                except (DBAPIError, OSError) as error:
                    log.warning("cannot look for events just now", error=repr(error)[:300])
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def events(self, job_id: str, *, after_seq: int) -> AsyncGenerator[JobEvent | None]:
        """All past `after_seq`, then the live ones, to the job's end; None now and then while nothing happens."""
        seq = after_seq
        with self._feed(job_id) as feed:
            while not feed.has_told(seq):
                news, events = feed.news, feed.after(seq)
                if events is None:
                    events = await self._read(job_id, seq)
                for event in events:
                    seq = event.seq
                    yield event
                if not events and not await _is_set(news, self._keep_alive_seconds):
                    yield None

    @contextmanager
    def _feed(self, job_id: str) -> Iterator[Feed]:
        feed = self._feeds.setdefault(job_id, Feed())
        feed.n_followers += 1
        if feed.seq is None:
            self._look_now.set()
        try:
            yield feed
        finally:
            feed.n_followers -= 1
            if not feed.n_followers:
                del self._feeds[job_id]

    def _hear(self, job_id: str | None) -> None:
        if job_id is None or job_id in self._feeds:
            self._look_now.set()

    async def _until_due(self) -> None:
        seconds = self._poll_seconds * (POLLS_WHILE_LISTENING if self._listener.hears else 1)
        await _is_set(self._look_now, seconds if self._feeds else None)
        self._look_now.clear()

    async def _look(self) -> None:
        if not self._feeds:
            return
        async with self._store.read() as session:
            # Status and number first: an event that comes with a final status cannot be missed then.
            jobs = select(Job.id, Job.status, Job.last_seq).where(Job.id.in_(list(self._feeds)))
            for job_id, status, last_seq in (await session.execute(jobs)).all():
                feed = self._feeds.get(job_id) or Feed()
                is_new = feed.seq is not None and last_seq > feed.seq
                events = await list_after(session, job_id, feed.seq or 0, limit=BATCH) if is_new else []
                seq = events[-1].seq if events else last_seq
                feed.tell(seq, events, is_over=Status(status).is_final and seq >= last_seq)
                if seq < last_seq:
                    self._look_now.set()

    async def _read(self, job_id: str, seq: int) -> list[JobEvent]:
        async with self._store.read() as session:
            return await list_after(session, job_id, seq, limit=BATCH)


async def follow(followers: Followers, job_id: str, *, after_seq: int) -> AsyncIterator[bytes]:
    """A job's events as a stream of server-sent events."""
    async with aclosing(followers.events(job_id, after_seq=after_seq)) as events:
        async for event in events:
            yield sse.encode(EventOut.of(event).model_dump()) if event else sse.KEEP_ALIVE
    yield sse.DONE


async def _is_set(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
