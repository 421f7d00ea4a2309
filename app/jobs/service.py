"""Fine-tuning jobs as their organisation sees them."""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.resolve import AdapterRef, UnknownModel, choose_gpu, resolve
from app.catalog.spec import Catalog, GpuChoice, ModelSpec
from app.errors import APIError, BadRequest, NotFound
from app.files.row_statistics import RowLengths
from app.files.service import get_training_file
from app.ids import new_id
from app.jobs import queue
from app.jobs.budgets import require_budget
from app.jobs.cost import estimate_micros
from app.jobs.estimate import require_fit, spare_memory
from app.jobs.events import record
from app.jobs.file_warnings import warnings_of
from app.jobs.forecast import resolve_numbers, resolve_trainable
from app.jobs.funding import require_estimate
from app.jobs.schemas import JobCreate
from app.jobs.states import UNFINISHED, EventType, Status
from app.orgs.keys import CurrentKey
from app.orgs.quotas import lock_org
from app.store.idempotency import claim_key
from app.store.paging import Page, PageQuery, paginate
from app.store.tables import Adapter, Checkpoint, Job, JobEvent

WARNINGS_TOLD = 5  # of the file, as events; estimate and preview tell more


class UnknownJob(NotFound):
    code = "fine_tuning_job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"No such fine-tuning job: '{job_id[:100]}'.", param="fine_tuning_job_id")


class TooManyQueued(APIError):
    status_code, type, code = 429, "rate_limit_error", "too_many_queued_jobs"
    headers = {"Retry-After": "60"}

    def __init__(self, max_queued: int) -> None:
        super().__init__(
            f"{max_queued} jobs of this organisation are queued, which is as many as may be; cancel one, or wait."
        )


async def create_job(
    session: AsyncSession,
    catalog: Catalog,
    key: CurrentKey,
    asked: JobCreate,
    *,
    gpu: GpuChoice,
    idempotency_key: str | None = None,
) -> Job:
    """Check everything that can be known now, make every "auto" a number, and queue the job."""
    job_id, org_id = new_id("ftjob"), key.org_id
    kept_id = await claim_key(session, org_id, idempotency_key, asked.model_dump(mode="json"), job_id)
    if kept_id != job_id:
        return await get_job(session, org_id, kept_id)
    spec, adapter = await resolve(session, catalog, org_id, asked.model)
    if adapter and not await _lock_model(session, adapter.job_id):
        raise UnknownModel(asked.model)
    training_file = await get_training_file(session, org_id, asked.training_file, param="training_file")
    if asked.validation_file:
        await get_training_file(session, org_id, asked.validation_file, param="validation_file")
    numbers = await resolve_numbers(session, asked, spec, adapter, training_file, on_cpu=gpu.type == "CPU")
    job = _new_job(job_id, key, asked, spec, adapter)
    if training_file.row_lengths:
        lengths = RowLengths.of(training_file.row_lengths)
        if asked.asked.gradient_checkpointing == "auto":
            numbers = spare_memory(catalog, spec, gpu, numbers, max(lengths.rows_of))
        job.memory_bytes = require_fit(catalog, spec, gpu, numbers, lengths)
    job.gpu, job.hyperparameters = str(gpu), numbers
    job.estimated_micros = await estimate_micros(session, catalog, job)
    await require_estimate(session, job)
    await require_budget(session, job)
    await queue.enqueue(session, job)
    for warning in warnings_of(training_file, numbers["max_seq_length"])[:WARNINGS_TOLD]:
        await record(session, job.id, EventType.WARNING, warning, level="warn")
    return await session.get_one(Job, job_id, populate_existing=True)


async def require_place(session: AsyncSession, org_id: str, *, max_queued: int) -> None:
    """For what was queued in this transaction, which is rolled back otherwise. Raises TooManyQueued."""
    await lock_org(session, org_id)
    queued = select(func.count()).where(Job.org_id == org_id, Job.status == Status.QUEUED)
    if (await session.scalar(queued) or 0) > max_queued:
        raise TooManyQueued(max_queued)


async def plan_gpu(
    session: AsyncSession,
    catalog: Catalog,
    org_id: str,
    asked: JobCreate,
    *,
    present: Sequence[GpuChoice],
    fallback: bool,
) -> GpuChoice:
    """Where the job shall run. Raises UnknownModel, WrongGpu, BadRequest for a model that is not to be trained."""
    spec, _ = await resolve_trainable(session, catalog, org_id, asked)
    return choose_gpu(spec, asked.gpu_preference, present, fallback=fallback)


def _new_job(job_id: str, key: CurrentKey, asked: JobCreate, spec: ModelSpec, adapter: AdapterRef | None) -> Job:
    return Job(
        id=job_id,
        org_id=key.org_id,
        key_id=key.key_id,
        model=asked.model if adapter else spec.id,
        base_model=spec.id,
        init_adapter=f"{adapter.job_id}/{adapter.folder}" if adapter else None,
        training_type=asked.training_type,
        training_file=asked.training_file,
        validation_file=asked.validation_file,
        suffix=asked.suffix,
        seed=asked.seed if asked.seed is not None else random.randrange(2**31),  # noqa: S311 - no secret
        job_metadata=asked.metadata or {},
        integrations=[each.model_dump() for each in asked.integrations or ()],
        result_files=[],
        trained_tokens=0,
        gpu_seconds=0.0,
        last_seq=0,
        metrics_offset=0,
        attempts=0,
        lease_token=0,
        created_at=time.time(),
    )


class ModelInUse(BadRequest):
    code = "model_in_use"


async def mark_model_deleted(session: AsyncSession, adapter: Adapter) -> None:
    """Raises ModelInUse when an unfinished job continues from the model or from one of its checkpoints."""
    await _lock_model(session, adapter.job_id)
    continues = Job.init_adapter.startswith(f"{adapter.job_id}/", autoescape=True)
    rows = select(Job.id).where(Job.org_id == adapter.org_id, continues, Job.status.in_(UNFINISHED))
    if job_id := await session.scalar(rows.limit(1)):
        raise ModelInUse(f"The job {job_id} continues from {adapter.name}; cancel it first.", param="model")
    adapter.deleted_at = time.time()


async def _lock_model(session: AsyncSession, job_id: str) -> bool:
    """Hold the model of a job, so that nobody deletes it or begins to use it meanwhile. False for a deleted one."""
    model = await session.scalar(
        select(Adapter).where(Adapter.job_id == job_id).with_for_update().execution_options(populate_existing=True)
    )
    return model is None or model.deleted_at is None


async def get_job(session: AsyncSession, org_id: str, job_id: str) -> Job:
    """Raises UnknownJob."""
    job = await session.scalar(select(Job).where(Job.id == job_id, Job.org_id == org_id))
    if job is None:
        raise UnknownJob(job_id)
    return job


async def list_jobs(session: AsyncSession, org_id: str, query: PageQuery, metadata: Mapping[str, str]) -> Page[Job]:
    rows = select(Job).where(Job.org_id == org_id)
    for key, value in metadata.items():
        rows = rows.where(Job.job_metadata[key].as_string() == value)
    return await paginate(session, rows, Job.id, query)


async def list_events(session: AsyncSession, job: Job, query: PageQuery) -> Page[JobEvent]:
    return await paginate(session, select(JobEvent).where(JobEvent.job_id == job.id), JobEvent.seq, query)


async def seq_of(session: AsyncSession, job: Job, event_id: str | None) -> int:
    """Where in the job's history an event is; 0 for none. Raises BadRequest for an unknown one."""
    if event_id is None:
        return 0
    event = select(JobEvent.seq).where(JobEvent.job_id == job.id, JobEvent.id == event_id)
    seq = await session.scalar(event)
    if seq is None:
        raise BadRequest("after: there is no such event to continue from.", param="after")
    return seq


async def list_checkpoints(session: AsyncSession, job: Job, query: PageQuery) -> Page[Checkpoint]:
    return await paginate(session, select(Checkpoint).where(Checkpoint.job_id == job.id), Checkpoint.step, query)


def metadata_filter(params: Mapping[str, Any]) -> dict[str, str]:
    """`metadata[k]=v` in a query string -> `{k: v}`."""
    return {
        name[len("metadata[") : -1]: value
        for name, value in params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
