"""The history of a job: rows numbered densely from 1."""

import time
from typing import Any, Literal

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.ids import new_id
from app.jobs.states import EventType
from app.store.notices import notify
from app.store.tables import Job, JobEvent

Level = Literal["info", "warn", "error"]

CHANNEL = "loam_job_events"  # on which the database tells the ids of jobs that have new ones


async def record(
    session: AsyncSession,
    job_id: str,
    event_type: EventType,
    message: str,
    *,
    level: Level = "info",
    data: dict[str, Any] | None = None,
) -> None:
    """Append one event; whoever appends to the same job waits for this transaction."""
    seq = await session.scalar(
        update(Job)
        .where(Job.id == job_id)
        .values(last_seq=Job.last_seq + 1, updated_at=time.time())
        .returning(Job.last_seq)
        .execution_options(synchronize_session=False)
    )
    metrics = event_type in (EventType.PROGRESS, EventType.VALIDATION)
    row = {
        "id": new_id("ftevent"),
        "job_id": job_id,
        "seq": seq,
        "level": level,
        "type": "metrics" if metrics else "message",
        "event_type": event_type,
        "message": message,
        "data": data or {},
        "created_at": time.time(),
    }
    await session.execute(insert(JobEvent).values(row))
    await notify(session, CHANNEL, job_id)


async def list_after(session: AsyncSession, job_id: str, seq: int, *, limit: int) -> list[JobEvent]:
    """Oldest first, strictly past `seq`."""
    rows = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq)
    return list(await session.scalars(rows.order_by(JobEvent.seq).limit(limit)))
