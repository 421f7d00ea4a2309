"""The routes of /fine_tuning/jobs."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import StreamingResponse

from app import sse
from app.catalog.names import fine_tuned_name
from app.catalog.spec import Catalog
from app.deps import SessionDep, SettingsDep
from app.devices.inventory import as_choices, for_training
from app.jobs import queue, service
from app.jobs.follow import follow
from app.jobs.integrations import require_installed
from app.jobs.metric_points import MetricsOut, MetricsQuery, list_points
from app.jobs.schemas import CheckpointOut, EventOut, JobCreate, JobOut
from app.orgs.allowed_models import require_model
from app.orgs.auth import AskingKey, CurrentOrg
from app.orgs.quotas import get_quotas
from app.store.idempotency import IdempotencyHeader
from app.store.paging import ListOut, PageQuery, list_out
from app.store.tables import Job

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])


def get_catalog(request: Request) -> Catalog:
    catalog: Catalog = request.app.state.catalog
    return catalog


async def get_current_job(job_id: str, org_id: CurrentOrg, session: SessionDep) -> Job:
    return await service.get_job(session, org_id, job_id)


CatalogDep = Annotated[Catalog, Depends(get_catalog)]
JobDep = Annotated[Job, Depends(get_current_job)]
PageDep = Annotated[PageQuery, Query()]


@router.post("")
async def create_job(
    request: Request,
    body: JobCreate,
    key: AskingKey,
    session: SessionDep,
    catalog: CatalogDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyHeader = None,
) -> JobOut:
    if not settings.simulate:  # where nobody is told anything
        require_installed(body.integrations or ())
    require_model(key, body.model)
    org_id, present = key.org_id, as_choices(for_training(request.app.state.devices))
    gpu = await service.plan_gpu(session, catalog, org_id, body, present=present, fallback=settings.gpu_fallback)
    job = await service.create_job(session, catalog, key, body, gpu=gpu, idempotency_key=idempotency_key)
    quotas = await get_quotas(session, org_id, settings)
    await service.require_place(session, org_id, max_queued=quotas.max_queued_jobs)
    return JobOut.of(job)


@router.get("")
async def list_jobs(request: Request, query: PageDep, org_id: CurrentOrg, session: SessionDep) -> ListOut[JobOut]:
    """Newest first; `metadata[k]=v` filters."""
    page = await service.list_jobs(session, org_id, query, service.metadata_filter(request.query_params))
    return ListOut[JobOut](**list_out([JobOut.of(job) for job in page.rows], has_more=page.has_more))


@router.get("/{job_id}")
async def get_job(job: JobDep) -> JobOut:
    return JobOut.of(job)


@router.post("/{job_id}/cancel")
async def cancel_job(job: JobDep, session: SessionDep, catalog: CatalogDep) -> JobOut:
    """Final at once; a job that is over already is a 400."""
    await queue.cancel(session, catalog, job)
    return JobOut.of(await session.get_one(Job, job.id, populate_existing=True))


@router.post("/{job_id}/pause")
async def pause_job(job: JobDep, session: SessionDep) -> JobOut:
    """Training stops at its next checkpoint, and its GPU is free."""
    await queue.pause(session, job)
    return JobOut.of(await session.get_one(Job, job.id, populate_existing=True))


@router.post("/{job_id}/resume")
async def resume_job(job: JobDep, session: SessionDep) -> JobOut:
    await queue.resume(session, job)
    return JobOut.of(await session.get_one(Job, job.id, populate_existing=True))


@router.get(
    "/{job_id}/events",
    response_model=ListOut[EventOut],
    responses={200: {"content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def list_events(request: Request, job: JobDep, query: PageDep, session: SessionDep) -> Any:
    """A page, newest first; or, as a stream, all from the beginning (or past `after`) and then live."""
    if sse.wants_stream(request):
        seq = await service.seq_of(session, job, query.after)
        return event_stream(follow(request.app.state.followers, job.id, after_seq=seq))
    page = await service.list_events(session, job, query)
    return ListOut[EventOut](**list_out([EventOut.of(event) for event in page.rows], has_more=page.has_more))


@router.get("/{job_id}/checkpoints")
async def list_checkpoints(job: JobDep, query: PageDep, session: SessionDep) -> ListOut[CheckpointOut]:
    page = await service.list_checkpoints(session, job, query)
    name = fine_tuned_name(job)
    data = [CheckpointOut.of(checkpoint, name) for checkpoint in page.rows]
    return ListOut[CheckpointOut](**list_out(data, has_more=page.has_more))


@router.get("/{job_id}/metrics")
async def list_metrics(job: JobDep, query: Annotated[MetricsQuery, Query()], session: SessionDep) -> MetricsOut:
    """Points of the curves `train.loss`, `val.loss` and others; `name` picks one."""
    return MetricsOut(job_id=job.id, points=await list_points(session, job, query))


def event_stream(lines: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(lines, media_type=sse.MEDIA_TYPE, headers={"Cache-Control": "no-cache"})
