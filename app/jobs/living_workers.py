"""Which workers live, what each of them can run, and the jobs that none of them can."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, CursorResult, delete, false, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.spec import GpuChoice
from app.devices.inventory import Device, as_choices
from app.jobs.events import record
from app.jobs.states import EventType, Stage, Status
from app.store.base import db_now
from app.store.tables import Job, Worker

GIB = 1 << 30


@dataclass(frozen=True)
class Capacity:
    """GPUs of one type on one host; `memory_bytes` of the smallest of them, 0 where it sets no limit."""

    type: str
    count: int
    memory_bytes: int

    @property
    def choices(self) -> list[GpuChoice]:
        return [GpuChoice(self.type, count) for count in range(1, self.count + 1)]

    def fits(self, gpu: GpuChoice, memory_bytes: int) -> bool:
        return gpu in self.choices and (not self.memory_bytes or memory_bytes <= self.memory_bytes)


def capacities_of(devices: Sequence[Device]) -> list[Capacity]:
    """The CPU has the memory it has, and swaps before it fails: it is no limit."""
    return [
        Capacity(choice.type, choice.count, _smallest(devices, choice.type) if choice.type != "CPU" else 0)
        for choice in as_choices(devices)
    ]


def _smallest(devices: Sequence[Device], type_: str) -> int:
    return min(device.memory_bytes for device in devices if device.type == type_)


def can_run(capacities: Sequence[Capacity]) -> ColumnElement[bool]:
    """`Capacity.fits` for SQL."""
    return or_(false(), *(_fits(capacity) for capacity in capacities))


def _fits(capacity: Capacity) -> ColumnElement[bool]:
    is_there = Job.gpu.in_([str(choice) for choice in capacity.choices])
    return is_there & (Job.memory_bytes <= capacity.memory_bytes) if capacity.memory_bytes else is_there


async def show(
    session: AsyncSession, worker_id: str, host: str, capacities: Sequence[Capacity], *, seconds: float
) -> None:
    """Be known as living for so long from now."""
    shown = {"gpus": [asdict(capacity) for capacity in capacities], "expires_at": db_now() + seconds}
    result = await session.execute(update(Worker).where(Worker.id == worker_id).values(shown))
    assert isinstance(result, CursorResult)
    if result.rowcount == 0:
        await session.execute(delete(Worker).where(Worker.expires_at < db_now()))
        await session.execute(insert(Worker).values(id=worker_id, host=host, since=time.time(), **shown))


async def leave(session: AsyncSession, worker_id: str) -> None:
    await session.execute(delete(Worker).where(Worker.id == worker_id))


async def list_living(session: AsyncSession) -> list[Worker]:
    rows = select(Worker).where(Worker.expires_at >= db_now()).order_by(Worker.host, Worker.since, Worker.id)
    return list(await session.scalars(rows))


def capacities_in(workers: Sequence[Worker]) -> list[Capacity]:
    return [Capacity(**gpu) for worker in workers for gpu in worker.gpus]


async def tell_of_no_worker(session: AsyncSession, *, after_seconds: float) -> None:
    """An event for each job that has waited so long and that no living worker can run; once in a job's life."""
    capacities = capacities_in(await list_living(session))
    told = (
        update(Job)
        .where(Job.status == Status.QUEUED, Job.stage == Stage.TRAIN, Job.no_worker_at.is_(None))
        .where(Job.created_at < time.time() - after_seconds, ~can_run(capacities))
        .values(no_worker_at=time.time())
        .returning(Job.id, Job.gpu, Job.memory_bytes)
        .execution_options(synchronize_session=False)
    )
    for job_id, gpu, memory_bytes in (await session.execute(told)).all():
        memory = f" with {memory_bytes / GIB:.1f} GiB each" if memory_bytes and gpu != "CPU" else ""
        message = f"No worker that runs now can train on {gpu}{memory}; the job waits for one"
        await record(session, job_id, EventType.WARNING, message, level="warn", data={"gpu": gpu})
