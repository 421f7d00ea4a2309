"""Which jobs, and what of their history, a synth-ai client asks to see."""

from sqlalchemy import ColumnElement, and_, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from app.compat.schemas import PHASES, JobsQuery
from app.moments import epoch_seconds
from app.store.paging import Page, paginate
from app.store.tables import Job, JobEvent


async def list_jobs(session: AsyncSession, org_id: str, query: JobsQuery) -> Page[Job]:
    return await paginate(session, select(Job).where(Job.org_id == org_id), Job.id, query, visible=_asked(query))


async def list_phases(session: AsyncSession, job: Job) -> list[JobEvent]:
    """The events that begin a phase, oldest first."""
    rows = select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.event_type.in_(PHASES))
    return list(await session.scalars(rows.order_by(JobEvent.seq)))


def _asked(query: JobsQuery) -> ColumnElement[bool]:
    asked: list[ColumnElement[bool]] = [true()]
    if query.status:
        asked.append(Job.status == query.status.lower())
    if query.model:
        asked.append(_is_of_model(query.model))
    if query.file_id:
        asked.append(or_(Job.training_file == query.file_id, Job.validation_file == query.file_id))
    if query.created_after:
        asked.append(Job.created_at > epoch_seconds(query.created_after))
    if query.created_before:
        asked.append(Job.created_at < epoch_seconds(query.created_before))
    return and_(*asked)


def _is_of_model(name: str) -> ColumnElement[bool]:
    """Trained from it, or into it."""
    columns = (Job.model, Job.base_model, Job.fine_tuned_model)
    return or_(*(func.lower(column) == name.lower() for column in columns))
