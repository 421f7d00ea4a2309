"""The routes of the synth-ai clients: thin, over the same jobs, files, models and ledger as OpenAI's."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request

from app import sse
from app.catalog.resolve import resolve
from app.compat.jobs import list_jobs, list_phases
from app.compat.schemas import (
    CompatJobCreate,
    CompatJobOut,
    CompatPoint,
    ConfigOut,
    EventsOut,
    EventsQuery,
    JobsOut,
    JobsQuery,
    PointsOut,
    TimelineOut,
    effective_config,
    event_out,
    phase_out,
)
from app.deps import SessionDep, SettingsDep
from app.files import router as files
from app.files.service import get_file
from app.jobs import router as fine_tuning
from app.jobs.events import list_after
from app.jobs.follow import follow
from app.jobs.metric_points import MetricsQuery, list_points
from app.jobs.router import CatalogDep, JobDep, event_stream
from app.jobs.schemas import EventOut
from app.jobs.service import get_job, seq_of
from app.orgs.allowed_models import require_model
from app.orgs.auth import AskingKey, CurrentOrg
from app.store.idempotency import IdempotencyHeader
from app.store.paging import ListOut, list_out
from app.store.tables import Job

router = APIRouter(include_in_schema=False)

JobsQueryDep = Annotated[JobsQuery, Query()]
DATA = b"data: "


# 1) files: the very handlers
router.add_api_route("/learning/files", files.upload_file, methods=["POST"])
router.add_api_route("/learning/files", files.list_files)
router.add_api_route("/learning/files/{file_id}", files.get_file)
router.add_api_route("/learning/files/{file_id}", files.delete_file, methods=["DELETE"])


# 2) jobs
@router.post("/learning/jobs")
@router.post("/sft/jobs")
async def create_job(
    request: Request,
    body: CompatJobCreate,
    key: AskingKey,
    session: SessionDep,
    catalog: CatalogDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyHeader = None,
) -> CompatJobOut:
    made = await fine_tuning.create_job(request, body, key, session, catalog, settings, idempotency_key)
    return CompatJobOut.of(await get_job(session, key.org_id, made.id))


@router.get("/learning/jobs")
async def list_learning_jobs(query: JobsQueryDep, org_id: CurrentOrg, session: SessionDep) -> JobsOut:
    page = await list_jobs(session, org_id, query)
    return JobsOut(jobs=[CompatJobOut.of(job) for job in page.rows], has_more=page.has_more)


@router.get("/sft/jobs")
async def list_sft_jobs(query: JobsQueryDep, org_id: CurrentOrg, session: SessionDep) -> ListOut[CompatJobOut]:
    page = await list_jobs(session, org_id, query)
    data = [CompatJobOut.of(job) for job in page.rows]
    return ListOut[CompatJobOut](**list_out(data, has_more=page.has_more))


@router.get("/learning/jobs/{job_id}")
@router.get("/learning/jobs/{job_id}/status")
@router.get("/sft/jobs/{job_id}")
async def retrieve_job(job: JobDep) -> CompatJobOut:
    return CompatJobOut.of(job)


@router.post("/learning/jobs/{job_id}/start")
async def start_job(job: JobDep) -> CompatJobOut:
    """A job starts by itself; this may be asked at any time, and again."""
    return CompatJobOut.of(job)


@router.post("/learning/jobs/{job_id}/cancel")
@router.post("/sft/jobs/{job_id}/cancel")
async def cancel_job(job: JobDep, session: SessionDep, catalog: CatalogDep) -> CompatJobOut:
    await fine_tuning.cancel_job(job, session, catalog)
    return CompatJobOut.of(await session.get_one(Job, job.id, populate_existing=True))


@router.get("/learning/jobs/{job_id}/config")
async def get_config(job: JobDep) -> ConfigOut:
    told = {"model": job.model, "training_file_id": job.training_file, "hyperparameters": job.hyperparameters}
    return ConfigOut(job_id=job.id, config={**told, **effective_config(job), "seed": job.seed, "suffix": job.suffix})


# 3) what happens to a job
@router.get("/learning/jobs/{job_id}/events", response_model=EventsOut)
@router.get("/sft/jobs/{job_id}/events", response_model=EventsOut)
async def list_events(
    request: Request,
    job: JobDep,
    query: Annotated[EventsQuery, Query()],
    session: SessionDep,
) -> Any:
    """Ascending from past `since_seq`; as a stream they go on live."""
    seq = max(query.since_seq, await seq_of(session, job, query.after))
    if sse.wants_stream(request):
        lines = follow(request.app.state.followers, job.id, after_seq=seq)
        return event_stream(in_their_words(job.id, lines))
    return EventsOut(events=await events_after(session, job, seq, query.limit))


@router.get("/learning/jobs/{job_id}/metrics")
async def list_metrics(job: JobDep, query: Annotated[MetricsQuery, Query()], session: SessionDep) -> PointsOut:
    points = await list_points(session, job, query)
    return PointsOut(job_id=job.id, points=[CompatPoint.of(point) for point in points])


@router.get("/learning/jobs/{job_id}/timeline")
async def get_timeline(job: JobDep, session: SessionDep) -> TimelineOut:
    events = await list_phases(session, job)
    phases = [phase_out(job.id, EventOut.of(event).model_dump()) for event in events]
    return TimelineOut(events=phases, timeline=phases)


router.add_api_route("/sft/jobs/{job_id}/checkpoints", fine_tuning.list_checkpoints)


# 4) the jobs that files and models had
@router.get("/files/{file_id}/jobs")
async def list_jobs_of_file(
    file_id: str, query: JobsQueryDep, org_id: CurrentOrg, session: SessionDep
) -> ListOut[CompatJobOut]:
    await get_file(session, org_id, file_id)
    return await list_sft_jobs(query.model_copy(update={"file_id": file_id}), org_id, session)


@router.get("/models/{model_id:path}/jobs")
async def list_jobs_of_model(
    model_id: str, query: JobsQueryDep, key: AskingKey, session: SessionDep, catalog: CatalogDep
) -> ListOut[CompatJobOut]:
    require_model(key, model_id)
    await resolve(session, catalog, key.org_id, model_id)
    return await list_sft_jobs(query.model_copy(update={"model": model_id}), key.org_id, session)


async def events_after(session: SessionDep, job: Job, seq: int, limit: int) -> list[dict[str, Any]]:
    events = await list_after(session, job.id, seq, limit=limit)
    return [event_out(job.id, EventOut.of(event).model_dump()) for event in events]


async def in_their_words(job_id: str, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for line in lines:
        is_event = line.startswith(DATA) and line != sse.DONE
        yield sse.encode(event_out(job_id, orjson.loads(line[len(DATA) :]))) if is_event else line
