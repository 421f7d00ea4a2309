"""Which jobs wait to be worked on, and whose turn it is."""

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app.catalog.spec import GpuChoice
from app.jobs.states import Stage, Status
from app.store.base import db_now
from app.store.tables import Job


@cache
def waits_for(stage: Stage) -> ColumnElement[bool]:
    """Queued, or left by a holder whose lease ran out."""
    abandoned = (Job.status == Status.RUNNING) & or_(Job.lease_expires_at.is_(None), Job.lease_expires_at < db_now())
    return or_(Job.status == Status.QUEUED, abandoned) & (Job.stage == stage)


@cache  # workers ask twice a second, and to build this takes longer than to ask it
def in_turn(stage: Stage) -> tuple[ColumnElement[Any] | InstrumentedAttribute[Any], ...]:
    """Organisations with the fewest running jobs first, and of these the one whose turn was longest ago.

    Within an organisation what was begun before goes on first, and then the oldest begins.
    """
    other = aliased(Job)
    is_running = (other.status == Status.RUNNING, other.stage == stage, other.lease_expires_at >= db_now())
    n_running = select(func.count()).where(other.org_id == Job.org_id, *is_running).correlate(Job)
    last_turn = select(func.max(other.started_at)).where(other.org_id == Job.org_id).correlate(Job)
    return (
        n_running.scalar_subquery(),
        Job.started_at.is_(None),
        func.coalesce(last_turn.scalar_subquery(), 0.0),
        Job.created_at,
        Job.id,
    )


def waiting_ids(stage: Stage) -> Select[str]:
    return select(Job.id).where(waits_for(stage))


async def list_next(session: AsyncSession, among: ColumnElement[bool]) -> list[tuple[str, GpuChoice]]:
    """Of all that wait for a worker the next one for each GPU and number of GPUs, in turn."""
    turn = in_turn(Stage.TRAIN)
    by_gpu = func.row_number().over(partition_by=Job.gpu, order_by=turn)
    waiting = select(Job.id, Job.gpu, func.row_number().over(order_by=turn).label("turn"), by_gpu.label("by_gpu"))
    rows = waiting.where(waits_for(Stage.TRAIN), among).subquery()
    first = select(rows.c.id, rows.c.gpu).where(rows.c.by_gpu == 1).order_by(rows.c.turn)
    return [(job_id, GpuChoice.parse(gpu)) for job_id, gpu in await session.execute(first)]
