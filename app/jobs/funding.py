"""A job's part of its organisation's balance: held when it is begun, more as it runs, until it is charged.

A worker that dies lets go of it when the job's lease runs out; who claims the job next holds anew.
"""

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import holds
from app.billing.ledger import InsufficientFunds
from app.billing.prices import training_micros
from app.catalog.spec import Catalog, GpuChoice
from app.files.row_statistics import RowLengths
from app.jobs import estimate, queue
from app.jobs.states import Status
from app.store.tables import File, Job

AHEAD_LEASES = 3
PAUSED_SECONDS = 366 * 24 * 3600.0


def cost_micros(catalog: Catalog, job: Job, *, more_seconds: float = 0.0) -> int:
    """As far as it has come, and as it would be after `more_seconds` at the same pace; 0 for a model that is gone."""
    spec, gpu = catalog.find(job.base_model), GpuChoice.parse(job.gpu)
    if spec is None:
        return 0
    gpu_seconds = job.gpu_seconds + more_seconds * gpu.count
    tokens = round(job.trained_tokens * gpu_seconds / job.gpu_seconds) if job.gpu_seconds else 0
    return training_micros(tokens, gpu_seconds, spec.dollars_per_million_tokens, catalog.gpus[gpu.type])


async def estimate_micros(session: AsyncSession, catalog: Catalog, job: Job) -> int:
    """What it is expected to cost in all: its tokens alone on a GPU of unknown speed; 0 where nothing is known."""
    spec, file = catalog.find(job.base_model), await session.get(File, job.training_file)
    if spec is None or file is None or not file.row_lengths:
        return 0
    lengths = RowLengths.of(file.row_lengths)
    n_tokens = estimate.trained_tokens(lengths, file.n_rows or 1, job.hyperparameters)
    gpu = GpuChoice.parse(job.gpu)
    seconds = estimate.training_seconds(catalog, spec, gpu, job.hyperparameters, n_tokens) or 0.0
    return training_micros(n_tokens, seconds * gpu.count, spec.dollars_per_million_tokens, catalog.gpus[gpu.type])


async def require_estimate(session: AsyncSession, catalog: Catalog, job: Job) -> None:
    """Raises InsufficientFunds unless the balance covers what the job is expected to cost."""
    funding = await holds.look(session, job.org_id, queue.hold_of(job.id))
    if funding.left_micros < max(1, await estimate_micros(session, catalog, job)):
        raise InsufficientFunds


async def fund(session: AsyncSession, catalog: Catalog, job: Job, *, lease_seconds: float) -> bool:
    """Hold what the job is expected to cost, or what there is. Where that is less than it needs to go on for a while,
    the job is paused instead.
    """
    holder = queue.hold_of(job.id)
    left = (await holds.look(session, job.org_id, holder)).left_micros
    needed = cost_micros(catalog, job, more_seconds=AHEAD_LEASES * lease_seconds)
    if left < needed:
        await holds.put(session, job.org_id, holder, cost_micros(catalog, job), seconds=PAUSED_SECONDS)
        await queue.pause(session, job, waits_for_credit=True)
        return False
    held = min(left, max(2 * needed, await estimate_micros(session, catalog, job)))
    await holds.put(session, job.org_id, holder, held, seconds=AHEAD_LEASES * lease_seconds)
    return True


async def any_waits_for_credit(session: AsyncSession) -> bool:
    return await session.scalar(select(Job.id).where(_waits_for_credit()).limit(1)) is not None


async def resume_funded(session: AsyncSession, catalog: Catalog, *, lease_seconds: float) -> None:
    """Those that waited for credit, where there is enough for a while now.

    First the jobs' rows are held and then, in one order, the balances': who cancels a job does it in that order too.
    """
    waiting = select(Job).where(_waits_for_credit()).order_by(Job.org_id, Job.created_at).limit(100)
    for job in list(await session.scalars(waiting.with_for_update(skip_locked=True))):
        left = (await holds.look(session, job.org_id, queue.hold_of(job.id))).left_micros
        if left >= cost_micros(catalog, job, more_seconds=2 * AHEAD_LEASES * lease_seconds):
            await queue.resume(session, job)


def _waits_for_credit() -> ColumnElement[bool]:
    return (Job.status == Status.PAUSED) & Job.waits_for_credit
