"""The queue is the jobs table: the only place that changes a job's status, and who may work on it.

Whoever works on a job holds a lease with a fencing token. Every write of a holder carries the token, so that one
who lost the lease (killed, paused, cut off, or the job was cancelled) changes nothing any more.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Update, func, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import holds, ledger
from app.billing.price_versions import version_of
from app.billing.prices import training_micros
from app.catalog.names import adapter_id, fine_tuned_name
from app.catalog.spec import Catalog, GpuChoice
from app.errors import BadRequest
from app.jobs.events import record
from app.jobs.states import UNFINISHED, EventType, Stage, Status
from app.jobs.waiting import in_turn, waits_for
from app.store.base import db_now
from app.store.tables import Adapter, Job

CLAIMERS = 0x10A4_C1A1  # the lock of those who claim: any number that nobody else takes
HOLD_PREFIX = "job/"


class LeaseLost(Exception):
    """Somebody else has the job now, or it is over. Stop working on it and change nothing."""


class WrongState(BadRequest):
    code = "invalid_job_state"


@dataclass(frozen=True)
class Lease:
    """The right to work on one job."""

    job_id: str
    token: int

    @property
    def holder(self) -> str:
        """The name under which devices are leased for it: another claim of the same job has another."""
        return f"{self.job_id}/{self.token}"


def hold_of(job_id: str) -> str:
    """The name under which a part of the balance is held for it, by whoever works on it."""
    return HOLD_PREFIX + job_id


async def enqueue(session: AsyncSession, job: Job) -> None:
    job.status, job.stage = Status.QUEUED, Stage.TRAIN
    session.add(job)
    await session.flush()
    await record(session, job.id, EventType.CREATED, f"Created fine-tuning job: {job.id}", data={"model": job.model})


async def claim(
    session: AsyncSession,
    holder: str,
    stage: Stage,
    *,
    lease_seconds: float,
    among: ColumnElement[bool] | None = None,
) -> tuple[Job, Lease] | None:
    """The job whose turn it is of those that need `stage`: queued, or left by a holder whose lease ran out.

    One statement, so two claimers never get the same job; and one claimer after the other, so that each sees what
    the one before it took when it asks whose turn it is.
    """
    await _queue_up(session)
    waiting = select(Job.id).where(waits_for(stage), true() if among is None else among)
    first = waiting.order_by(*in_turn(stage)).limit(1).with_for_update(of=Job, skip_locked=True)
    job = await session.scalar(
        update(Job)
        .where(Job.id == first.scalar_subquery())
        .values(
            status=Status.RUNNING,
            lease_holder=holder,
            lease_token=Job.lease_token + 1,
            lease_expires_at=db_now() + lease_seconds,
            attempts=Job.attempts + 1,
            started_at=func.coalesce(Job.started_at, time.time()),
            updated_at=time.time(),
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return (job, Lease(job.id, job.lease_token)) if job else None


async def heartbeat(session: AsyncSession, lease: Lease, *, lease_seconds: float, **progress: Any) -> None:
    """Hold on to the job for longer, and write down how far it is (`metrics_offset`, `trained_tokens`).

    Raises LeaseLost.
    """
    await _as_holder(session, lease, update(Job).values(lease_expires_at=db_now() + lease_seconds, **progress))
    await holds.extend(session, hold_of(lease.job_id), seconds=2 * lease_seconds)


async def use_gpus(session: AsyncSession, lease: Lease, gpu_seconds: float) -> None:
    """Count GPU time that the job has used. Raises LeaseLost."""
    await _as_holder(session, lease, update(Job).values(gpu_seconds=Job.gpu_seconds + gpu_seconds))


async def hand_over(session: AsyncSession, lease: Lease) -> None:
    """Training is done; a gateway publishes. Raises LeaseLost."""
    await _let_go(session, lease, stage=Stage.PUBLISH, attempts=0)


async def give_back(session: AsyncSession, lease: Lease) -> None:
    """Let somebody else go on with the job, at once. Raises LeaseLost."""
    await _let_go(session, lease, status=Status.QUEUED, attempts=Job.attempts - 1)


async def retry_later(session: AsyncSession, lease: Lease, *, after_seconds: float) -> None:
    """Let somebody, we or another, claim the job's stage again after a while. Raises LeaseLost."""
    await _let_go(session, lease, lease_expires_at=db_now() + after_seconds)


async def defer(session: AsyncSession, lease: Lease, *, after_seconds: float) -> None:
    """Nothing could be begun yet: as `retry_later`, but it does not count as an attempt. Raises LeaseLost."""
    await _let_go(session, lease, lease_expires_at=db_now() + after_seconds, attempts=Job.attempts - 1)


async def succeed(session: AsyncSession, lease: Lease, catalog: Catalog, *, result_files: list[str]) -> None:
    """Adapter, charge, status and the event that tells of it, together or not at all. Raises LeaseLost."""
    await _end(session, lease, Status.SUCCEEDED, result_files=result_files)
    job = await _reload(session, lease.job_id)
    name = fine_tuned_name(job)
    session.add(Adapter(id=adapter_id(job.id), org_id=job.org_id, job_id=job.id, name=name, base_model=job.base_model))
    await session.execute(update(Job).where(Job.id == job.id).values(fine_tuned_model=name))
    await _charge(session, catalog, job)
    await record(
        session,
        job.id,
        EventType.COMPLETED,
        "The job has successfully completed",
        data={"fine_tuned_model": name},
    )


async def fail(session: AsyncSession, lease: Lease, *, code: str, message: str, param: str | None = None) -> None:
    """A job that fails is not charged. Raises LeaseLost."""
    error = {"code": code, "message": message, "param": param}
    await _end(session, lease, Status.FAILED, error=error)
    await record(session, lease.job_id, EventType.FAILED, message, level="error", data={"error": error})


async def cancel(session: AsyncSession, catalog: Catalog, job: Job) -> None:
    """Final at once, in every state: whoever works on the job finds the lease gone. Raises WrongState."""
    await _change(session, job, UNFINISHED, Status.CANCELLED, finished_at=time.time())
    job = await _reload(session, job.id)
    await holds.release(session, hold_of(job.id))
    if job.gpu_seconds:
        await _charge(session, catalog, job)
    await record(session, job.id, EventType.CANCELLED, "The job was cancelled")


async def cancel_all(session: AsyncSession, catalog: Catalog, org_id: str) -> None:
    """What becomes of the jobs of an organisation that goes. Those that end meanwhile have ended."""
    unfinished = Job.status.in_(UNFINISHED)
    for job in (await session.scalars(select(Job).where(Job.org_id == org_id, unfinished).order_by(Job.id))).all():
        with suppress(WrongState):
            await cancel(session, catalog, job)


async def pause(session: AsyncSession, job: Job, *, until: str = "") -> None:
    """The worker writes a checkpoint and lets go. `until` says why the job is paused, if it goes on by itself once it
    can be paid. Raises WrongState.
    """
    values = {"stage": Stage.TRAIN, "waits_for_credit": bool(until)}
    await _change(session, job, (Status.QUEUED, Status.RUNNING), Status.PAUSED, **values)
    await record(session, job.id, EventType.PAUSED, f"The job was paused: {until}" if until else "The job was paused")


async def resume(session: AsyncSession, job: Job) -> None:
    """Back into the queue. Raises WrongState."""
    await _change(session, job, (Status.PAUSED,), Status.QUEUED, stage=Stage.TRAIN, attempts=0, waits_for_credit=False)
    await record(session, job.id, EventType.RESUMED, "The job was resumed")


async def check_lease(session: AsyncSession, lease: Lease) -> None:
    """Hold the job's row until this transaction ends. Raises LeaseLost."""
    await _as_holder(session, lease, update(Job).values(updated_at=time.time()))


async def was_the_last(session: AsyncSession, lease: Lease) -> bool:
    """Whether the job was paused or cancelled under this lease, and nobody has had it since; if so, hold its row."""
    ended_by_owner = Job.status.in_((Status.PAUSED, Status.CANCELLED))
    mine = (Job.id == lease.job_id, Job.lease_token == lease.token + 1, ended_by_owner)
    return await session.scalar(select(Job.id).where(*mine).with_for_update()) is not None


async def _queue_up(session: AsyncSession) -> None:
    """Behind the claimers whose transactions are under way; SQLite lets one write at a time anyway."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(select(func.pg_advisory_xact_lock(CLAIMERS)))


async def _let_go(session: AsyncSession, lease: Lease, **values: Any) -> None:
    """The new token fences off the holder itself: whatever it still has under way comes too late."""
    released = {"lease_holder": None, "lease_expires_at": None, "lease_token": Job.lease_token + 1}
    await _as_holder(session, lease, update(Job).values({**released, **values}))


async def _as_holder(session: AsyncSession, lease: Lease, change: Update) -> None:
    mine = (Job.id == lease.job_id, Job.lease_token == lease.token, Job.status == Status.RUNNING)
    result = await session.execute(change.where(*mine).execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise LeaseLost(lease.job_id)


async def _end(session: AsyncSession, lease: Lease, status: Status, **values: Any) -> None:
    over = {"status": status, "lease_holder": None, "lease_expires_at": None, "finished_at": time.time()}
    await _as_holder(session, lease, update(Job).values(**over, **values))
    await holds.release(session, hold_of(lease.job_id))


async def _change(session: AsyncSession, job: Job, allowed: tuple[Status, ...], to: Status, **values: Any) -> None:
    released = {"lease_holder": None, "lease_expires_at": None, "lease_token": Job.lease_token + 1}
    result = await session.execute(
        update(Job)
        .where(Job.id == job.id, Job.status.in_(allowed))
        .values(status=to, updated_at=time.time(), **released, **values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        now = (await _reload(session, job.id)).status
        raise WrongState(f"The job is {now}; it cannot become {to} any more.")


async def _reload(session: AsyncSession, job_id: str) -> Job:
    return await session.get_one(Job, job_id, populate_existing=True)


async def _charge(session: AsyncSession, catalog: Catalog, job: Job) -> None:
    spec, gpu = catalog.find(job.base_model), GpuChoice.parse(job.gpu)
    if spec is None:
        return
    micros = training_micros(
        job.trained_tokens, job.gpu_seconds, spec.dollars_per_million_tokens, catalog.gpus[gpu.type]
    )
    entry = ledger.Entry(
        org_id=job.org_id,
        key_id=job.key_id,
        source=f"job:{job.id}",
        kind="training",
        amount_micros=-micros,
        model=job.base_model,
        gpu=job.gpu,
        trained_tokens=job.trained_tokens,
        gpu_seconds=job.gpu_seconds,
        price_version=version_of(catalog),
    )
    await ledger.append(session, entry)
