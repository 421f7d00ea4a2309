"""`loam jobs`: what is trained, live in the terminal, for whoever runs the server."""

import asyncio
import time
from typing import Annotated

import typer
from rich.table import Column, Table
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.admin import jobs as acts
from app.catalog.load import load_catalog
from app.errors import NotFound
from app.job_display import JobDisplay
from app.jobs.follow import Followers
from app.jobs.living_workers import capacities_in, list_living
from app.jobs.states import UNFINISHED, EventType, Stage, Status
from app.orgs.audit import Actor
from app.orgs.service import get_org
from app.overview import duration
from app.settings import Settings
from app.store.session import Store
from app.store.tables import Job, JobEvent, Org
from app.terminal import DataDir, err, in_store, look_in_store, on_store, out, read_settings, show

NEWEST = 50

jobs = typer.Typer(no_args_is_help=True, help="Fine-tuning jobs.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="Its id, ftjob-…")]
OrgFilter = Annotated[str | None, typer.Option("--org", help="Only of this organisation; its name or id.")]


@jobs.command("list")
def list_jobs(org: OrgFilter = None, data_dir: DataDir = None) -> None:
    """The newest jobs, of all organisations or of one."""

    async def look(session: AsyncSession) -> None:
        rows = select(Job, Org.name).join(Org, Org.id == Job.org_id).order_by(Job.created_at.desc(), Job.id.desc())
        if org:
            rows = rows.where(Job.org_id == (await get_org(session, org)).id)
        found = [(job, name) for job, name in await session.execute(rows.limit(NEWEST))]
        steps = await _steps(session, [job.id for job, _ in found if job.status in UNFINISHED])
        numbers = (Column(name, justify="right") for name in ("step", "created"))
        table = Table("id", "organisation", "model", "gpu", "state", *numbers)
        for job, name in found:
            ago = f"{duration(time.time() - job.created_at)} ago"
            table.add_row(job.id, name, job.model, job.gpu, state_of(job), steps.get(job.id, ""), ago)
        show(table)

    look_in_store(read_settings(data_dir=data_dir), look)


@jobs.command("follow")
def follow_job(job_id: JobId, data_dir: DataDir = None) -> None:
    """A job's events to its end, with its progress. The exit status is 0 if it has succeeded."""
    settings = read_settings(data_dir=data_dir)

    async def follow(store: Store) -> None:
        async with store.read() as session:
            await _get_job(session, job_id)
        await _show_to_the_end(settings, store, job_id)
        async with store.read() as session:
            _say_how_it_ended(await _get_job(session, job_id))

    try:
        on_store(settings, follow)
    except KeyboardInterrupt:
        err.print(f"The job goes on. Follow it again with: loam jobs follow {job_id}", markup=False)
        raise typer.Exit(130) from None


@jobs.command("cancel")
def cancel_job(job_id: JobId, data_dir: DataDir = None) -> None:
    """End a job; its checkpoints stay."""
    settings = read_settings(data_dir=data_dir)
    catalog = load_catalog(settings.catalog)

    async def cancel(session: AsyncSession) -> None:
        await acts.cancel_job(session, Actor.at_terminal(), catalog, await _get_job(session, job_id))
        out.print(f"Cancelled {job_id}.", markup=False)

    in_store(settings, cancel)


@jobs.command("workers")
def list_workers(data_dir: DataDir = None) -> None:
    """The workers that live, on all hosts, and what each can run."""

    async def look(session: AsyncSession) -> None:
        table = Table("host", "can run", Column("since", justify="right"))
        for worker in await list_living(session):
            can_run = ", ".join(f"{capacity.count} × {capacity.type}" for capacity in capacities_in([worker]))
            table.add_row(worker.host, can_run, f"{duration(time.time() - worker.since)} ago")
        show(table)

    look_in_store(read_settings(data_dir=data_dir), look)


def state_of(job: Job) -> str:
    if job.status == Status.QUEUED and job.no_worker_at:
        return f"queued: no worker for {job.gpu}"
    if job.status == Status.RUNNING:
        return "publishing" if job.stage == Stage.PUBLISH else "training"
    return job.status


async def _steps(session: AsyncSession, job_ids: list[str]) -> dict[str, str]:
    """How far jobs are, by id: `5/10`."""
    progress = (JobEvent.job_id.in_(job_ids), JobEvent.event_type == EventType.PROGRESS)
    last = select(JobEvent.job_id, func.max(JobEvent.seq)).where(*progress).group_by(JobEvent.job_id).subquery()
    rows = select(JobEvent).join(last, (JobEvent.job_id == last.c[0]) & (JobEvent.seq == last.c[1]))
    return {e.job_id: f"{e.data['step']}/{e.data['total_steps']}" for e in await session.scalars(rows)}


async def _get_job(session: AsyncSession, job_id: str) -> Job:
    job = await session.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id!r}; those that are there: loam jobs list")
    return job


async def _show_to_the_end(settings: Settings, store: Store, job_id: str) -> None:
    keep_alive_seconds = settings.keep_alive_seconds
    followers = Followers(store, poll_seconds=settings.poll_seconds, keep_alive_seconds=keep_alive_seconds)
    looking = asyncio.create_task(followers.run())
    try:
        with JobDisplay(out) as display:
            async for event in followers.events(job_id, after_seq=0):
                if event:
                    display.show(event)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def _say_how_it_ended(job: Job) -> None:
    if job.status == Status.SUCCEEDED:
        out.print(f"The model is {job.fine_tuned_model}", style="green", markup=False)
        return
    how = f"has failed: {job.error['message']}" if job.error else f"was {job.status}."
    err.print(f"The job {how}", style="red", markup=False)
    raise typer.Exit(1)
