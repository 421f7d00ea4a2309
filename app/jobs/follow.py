"""A job's events as they happen."""

from collections.abc import AsyncIterator

import anyio

from app import sse
from app.jobs.events import list_after
from app.jobs.schemas import EventOut
from app.jobs.states import Status
from app.store.session import Store
from app.store.tables import Job

BATCH = 500


async def follow(store: Store, job_id: str, *, after_seq: int, poll_seconds: float) -> AsyncIterator[bytes]:
    """All events past `after_seq`, then the live ones; ends when the job has ended and all is told."""
    seq = after_seq
    while True:
        async with store.read() as session:
            # The status first: an event that comes after a final status cannot be missed then.
            job = await session.get_one(Job, job_id)
            events = await list_after(session, job_id, seq, limit=BATCH)
        for event in events:
            seq = event.seq
            yield sse.encode(EventOut.of(event).model_dump())
        if events:
            continue
        if Status(job.status).is_final:
            break
        yield sse.KEEP_ALIVE
        await anyio.sleep(poll_seconds)
    yield sse.DONE
