"""A job's part of its organisation's balance: held when it is begun, more as it runs, until it is charged.

What it was going to spend is let go of when its lease runs out, since its worker died or the job was paused; who claims
it next holds anew. What it has cost by then stays held: it is charged when the job ends, whoever ends it.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import holds
from app.billing.ledger import InsufficientFunds
from app.catalog.spec import Catalog
from app.jobs import queue
from app.jobs.budgets import left_of_budgets
from app.jobs.cost import cost_micros
from app.jobs.states import Status
from app.store.tables import Job

AHEAD_LEASES = 3


@dataclass(frozen=True)
class Means:
    """What there is to pay a job from, and what has to be for there to be more."""

    micros: int
    of: str
    until: str


async def require_estimate(session: AsyncSession, job: Job) -> None:
    """Raises InsufficientFunds unless the balance covers what the job is expected to cost."""
    funding = await holds.look(session, job.org_id, queue.hold_of(job.id))
    if funding.left_micros < max(1, job.estimated_micros):
        raise InsufficientFunds


async def fund(session: AsyncSession, catalog: Catalog, job: Job, *, lease_seconds: float) -> bool:
    """Hold what the job is expected to cost, or what there is. Where that is less than it needs to go on for a while,
    the job is paused instead.
    """
    needed = cost_micros(catalog, job, more_seconds=AHEAD_LEASES * lease_seconds)
    means = await _means(session, job)
    if means.micros < needed:
        cost = cost_micros(catalog, job)
        await _hold(session, job, cost, kept_micros=cost, seconds=lease_seconds)
        await queue.pause(session, job, until=f"{means.of} does not cover more of it; it goes on {means.until}")
        return False
    held = min(means.micros, max(2 * needed, job.estimated_micros))
    # Until it is funded again: whoever does not report for a lease has lost the job.
    kept = cost_micros(catalog, job, more_seconds=lease_seconds)
    await _hold(session, job, held, kept_micros=kept, seconds=AHEAD_LEASES * lease_seconds)
    return True


async def any_waits_for_credit(session: AsyncSession) -> bool:
    return await session.scalar(select(Job.id).where(_waits_for_credit()).limit(1)) is not None


async def resume_funded(session: AsyncSession, catalog: Catalog, *, lease_seconds: float) -> None:
    """Those that waited for credit, where there is enough for a while now.

    First the jobs' rows are held and then, in one order, the balances': who cancels a job does it in that order too.
    """
    waiting = select(Job).where(_waits_for_credit()).order_by(Job.org_id, Job.created_at).limit(100)
    for job in list(await session.scalars(waiting.with_for_update(skip_locked=True))):
        means = await _means(session, job)
        if means.micros >= cost_micros(catalog, job, more_seconds=2 * AHEAD_LEASES * lease_seconds):
            await queue.resume(session, job)


async def _means(session: AsyncSession, job: Job) -> Means:
    """The balance or a budget, whichever covers less; nobody else spends of the balance in this transaction."""
    balance = (await holds.look(session, job.org_id, queue.hold_of(job.id))).left_micros
    budgets = [
        Means(left.micros, f"the monthly budget of {left.whose}", "next month, or once the budget is raised")
        for left in await left_of_budgets(session, job)
    ]
    return min([Means(balance, "the balance", "once there is credit"), *budgets], key=lambda means: means.micros)


async def _hold(session: AsyncSession, job: Job, micros: int, *, kept_micros: int, seconds: float) -> None:
    holder = queue.hold_of(job.id)
    await holds.put(session, job.org_id, holder, micros, seconds=seconds)
    await holds.keep(session, holder, kept_micros, key_id=job.key_id)


def _waits_for_credit() -> ColumnElement[bool]:
    return (Job.status == Status.PAUSED) & Job.waits_for_credit
