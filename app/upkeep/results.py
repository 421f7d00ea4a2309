"""A job's metrics as the file of its results: what was measured until it ended, in whichever way it did."""

import csv
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from sqlalchemy import String, cast, select

from app.files.service import describe, save_bytes
from app.files.storage import Storage
from app.jobs.metrics import MEASURED, read_metrics
from app.jobs.states import Status
from app.settings import Settings
from app.store.session import Store
from app.store.tables import File, Job

SETTLED_SECONDS = 10.0  # a recipe that is cancelled may finish its step
LOOK_BACK_SECONDS = 24 * 3600.0


async def save_results(settings: Settings, storage: Storage, job: Job) -> File:
    """The metrics as a CSV file; the row is yet to be added."""
    text = await anyio.to_thread.run_sync(metrics_csv, storage.run(job.id) / "metrics.jsonl")
    file_id, saved = await save_bytes(storage, _once(text), max_bytes=settings.max_file_bytes)
    name = f"{job.id}-metrics.csv"
    return await describe(storage, job.org_id, file_id, saved, filename=name, purpose="fine-tune-results")


async def save_results_of_ended(settings: Settings, store: Store, storage: Storage) -> None:
    """Of the jobs that have failed or were cancelled, whoever ended them; a crash in between is made good here."""
    now = time.time()
    ended = Job.finished_at.between(now - LOOK_BACK_SECONDS, now - SETTLED_SECONDS)
    is_over = Job.status.in_((Status.FAILED, Status.CANCELLED))
    lacks_them = (is_over, ended, Job.trained_tokens > 0, cast(Job.result_files, String) == "[]")
    async with store.read() as session:
        jobs = (await session.scalars(select(Job).where(*lacks_them).order_by(Job.id))).all()
    for job in jobs:
        results = await save_results(settings, storage, job)
        async with store.begin() as session:  # another gateway may be as far; what it does not need is swept
            mine = select(Job).where(Job.id == job.id, *lacks_them).with_for_update()
            if kept := await session.scalar(mine.execution_options(populate_existing=True)):
                session.add(results)
                kept.result_files = [results.id]


def metrics_csv(path: Path) -> bytes:
    """A line for each step, the last told of it; blanks where a step was not validated."""
    out = io.StringIO()
    writer = csv.DictWriter(out, MEASURED, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_by_step(path))
    return out.getvalue().encode()


def _by_step(path: Path) -> list[dict[str, Any]]:
    steps: dict[int, dict[str, Any]] = {}
    for record in read_metrics(path)[0]:
        if record["kind"] in ("step", "validation"):
            steps.setdefault(record["step"], {}).update(record)
    return [steps[step] for step in sorted(steps)]


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
