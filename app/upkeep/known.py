"""What the store knows of the things in the data dir."""

import time
from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.names import job_id_in
from app.engines.statuses import list_statuses
from app.jobs.states import UNFINISHED, Status
from app.store.tables import Adapter, Checkpoint, File, Job, Org
from app.upkeep.garbage import Known, RunFacts


async def what_is_known(session: AsyncSession) -> Known:
    since = await session.scalar(select(func.min(Org.created_at)))
    files = await session.scalars(select(File.id).where(File.deleted_at.is_(None)))
    return Known(since if since is not None else time.time(), frozenset(files), await _runs(session))


async def _runs(session: AsyncSession) -> dict[str, RunFacts]:
    statuses = await list_statuses(session)
    loaded = {name for status in statuses for name in status.adapters}
    of_own_engines = {job_id_in(status.model) for status in statuses}
    checkpoints, steps = await _checkpoints(session)
    in_use = await _begun_from(session) | of_own_engines
    columns = (Job.id, Job.status, Job.finished_at, Job.updated_at, Adapter.id, Adapter.deleted_at)
    rows = await session.execute(select(*columns).outerjoin(Adapter, Adapter.job_id == Job.id))
    return {
        job_id: RunFacts(
            is_over=Status(status).is_final,
            ended_at=max(finished_at or updated_at, deleted_at or 0.0),
            is_in_use=job_id in in_use or not loaded.isdisjoint({adapter_id, *checkpoints[job_id]}),
            has_model=adapter_id is not None and deleted_at is None,
            steps=frozenset(steps[job_id] if deleted_at is None else ()),
        )
        for job_id, status, finished_at, updated_at, adapter_id, deleted_at in rows
    }


async def _checkpoints(session: AsyncSession) -> tuple[defaultdict[str, set[str]], defaultdict[str, set[int]]]:
    """Of each job: their ids, which are their names inside engines, and their steps."""
    ids, steps = defaultdict[str, set[str]](set), defaultdict[str, set[int]](set)
    for job_id, checkpoint_id, step in await session.execute(select(Checkpoint.job_id, Checkpoint.id, Checkpoint.step)):
        ids[job_id].add(checkpoint_id)
        steps[job_id].add(step)
    return ids, steps


async def _begun_from(session: AsyncSession) -> set[str]:
    """The jobs whose adapters are what unfinished jobs begin with."""
    rows = select(Job.init_adapter).where(Job.init_adapter.is_not(None), Job.status.in_(UNFINISHED))
    return {str(adapter).partition("/")[0] for adapter in await session.scalars(rows)}
