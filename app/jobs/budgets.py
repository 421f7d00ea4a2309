"""Monthly budgets of who created a job: what they leave for it."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.budgets import BudgetSpent, used_this_month
from app.jobs import queue
from app.jobs.states import UNFINISHED
from app.store.tables import ApiKey, Hold, Job, Org


@dataclass(frozen=True)
class Left:
    """Of one budget, for one job; below zero where it is exceeded."""

    whose: str
    key_id: str
    budget_micros: int
    micros: int


class BeyondBudget(BudgetSpent):
    def __init__(self, estimated_micros: int, left: Left, micros: int) -> None:
        amounts = (estimated_micros, left.budget_micros, max(0, micros))
        expected, budget, rest = (f"${amount / 1e6:,.2f}" for amount in amounts)
        super().__init__(
            f"The job is expected to cost {expected}. Of the monthly budget of {left.whose}, {budget}, {rest} is left "
            "beside what was spent and what other jobs are going to cost; it begins anew on the 1st."
        )


async def left_of_budgets(session: AsyncSession, job: Job) -> list[Left]:
    """Of its key's and its organisation's, where they have one; what the job itself has cost is still there."""
    org = await session.get_one(Org, job.org_id)
    key = await session.get(ApiKey, job.key_id) if job.key_id else None
    budgets = [("the organisation", "", org.monthly_budget_micros)]
    if key:
        budgets.append(("its key", key.id, key.monthly_budget_micros))
    found = []
    for whose, key_id, budget in budgets:
        if budget is not None:
            used = await used_this_month(session, job.org_id, key_id, besides=queue.hold_of(job.id))
            found.append(Left(whose, key_id, budget, budget - used))
    return found


async def require_budget(session: AsyncSession, job: Job) -> None:
    """Raises BudgetSpent unless the budgets cover what the job is expected to cost, beside what others are."""
    for left in await left_of_budgets(session, job):
        micros = left.micros - await _expected_micros(session, job, left.key_id)
        if micros < max(1, job.estimated_micros):
            raise BeyondBudget(job.estimated_micros, left, micros)


async def _expected_micros(session: AsyncSession, job: Job, key_id: str) -> int:
    """What other jobs that are not over will yet cost, beyond what is kept for them."""
    kept = func.coalesce(Hold.kept_micros, 0)
    rows = select(Job.estimated_micros, kept).outerjoin(Hold, Hold.holder == queue.HOLD_PREFIX + Job.id)
    rows = rows.where(Job.org_id == job.org_id, Job.id != job.id, Job.status.in_(UNFINISHED))
    if key_id:
        rows = rows.where(Job.key_id == key_id)
    return sum(max(0, int(estimated) - int(kept)) for estimated, kept in await session.execute(rows))
