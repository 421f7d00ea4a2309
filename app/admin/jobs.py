"""What is done to jobs by whoever runs the server, and that it was done."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.spec import Catalog
from app.jobs import queue
from app.orgs.audit import Action, Actor, record
from app.store.tables import Job


async def cancel_job(session: AsyncSession, actor: Actor, catalog: Catalog, job: Job) -> None:
    """Raises WrongState."""
    await queue.cancel(session, catalog, job)
    await record(session, actor, Action.JOB_CANCELLED, job.org_id, job.id, {"model": job.model})
