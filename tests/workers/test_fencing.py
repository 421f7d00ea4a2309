"""A worker that is stopped for longer than its lease, and then goes on, changes nothing of what became another's."""

import hashlib
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select, update

from app.files.storage import Storage
from app.jobs.states import EventType, Status
from app.settings import Settings
from app.store.session import Store
from app.store.tables import Checkpoint, Job
from tests.eventually import eventually
from tests.workers.test_worker import (
    assert_told_once,
    checkpoint_folders,
    checkpoint_steps,
    events_of,
    get_job,
    queue_job,
    reached,
    settings_for,
    trained,
    worker,
)

pytestmark = pytest.mark.anyio


def recipes_of(worker: BaseProcess) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children(recursive=True)


def send(process: BaseProcess, number: signal.Signals) -> None:
    assert process.pid
    os.kill(process.pid, number)


async def snapshot(store: Store, settings: Settings, job_id: str) -> dict[str, Any]:
    job = await get_job(store, job_id)
    folder = Storage(settings.data_dir).run(job_id)
    async with store.read() as session:
        points = list(await session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == job_id)))
    return {
        **{column.key: getattr(job, column.key) for column in Job.__table__.columns},
        "events": [event.id for event in await events_of(store, job_id)],
        "checkpoints": sorted(points),
        "files": {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()},
    }


@pytest.mark.parametrize(("stopped", "step"), [("worker", 3), ("worker", 8), ("worker and recipe", 5)])
async def test_a_worker_that_wakes_up_late_changes_nothing(
    tmp_path: Path, store: Store, store_url: str, stopped: str, step: int
) -> None:
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=1.5)
    job_id = await queue_job(store, settings)
    with worker(settings) as one, worker(settings) as other:
        await eventually(lambda: reached(store, job_id, step))
        late, next_one = (one, other) if recipes_of(one) else (other, one)
        recipes = recipes_of(late)
        send(late, signal.SIGSTOP)
        for recipe in recipes if "recipe" in stopped else []:
            recipe.suspend()
        await trained(store, job_id)
        next_one.kill()
        before = await snapshot(store, settings, job_id)
        await assert_told_once(store, settings, job_id)
        another = await queue_job(store, settings)
        send(late, signal.SIGCONT)
        await trained(store, another)  # the late one has seen that the first is not its own, and goes on with the next
        assert late.is_alive()
    assert await snapshot(store, settings, job_id) == before


async def test_a_recipe_that_nobody_of_this_host_can_end_is_waited_for(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    """The worker of another host is stopped: there its recipe still writes."""
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=60.0, lease_seconds=0.5)
    job_id = await queue_job(store, settings)
    with worker(settings) as elsewhere:
        await eventually(lambda: has_started(store, job_id))
        [recipe] = [child for child in recipes_of(elsewhere) if child.cmdline()[-1].endswith(job_id)]
        (Storage(tmp_path).run(job_id) / "lock").write_text(f"another-host {recipe.pid}")
        send(elsewhere, signal.SIGSTOP)
        with worker(settings_for(tmp_path, store_url, simulate_training_seconds=0.0)):
            token = (await get_job(store, job_id)).lease_token
            await eventually(lambda: has_token(store, job_id, token + 4))  # claimed and put off, again and again
            assert recipe.is_running()
            assert (await get_job(store, job_id)).attempts <= 2
            recipe.kill()
            await trained(store, job_id)


async def has_started(store: Store, job_id: str) -> bool:
    return any(event.event_type == EventType.STARTED for event in await events_of(store, job_id))


async def has_token(store: Store, job_id: str, token: int) -> bool:
    return (await get_job(store, job_id)).lease_token >= token


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.PAUSED])
async def test_of_a_job_that_its_owner_stopped_every_listed_checkpoint_is_there(
    tmp_path: Path, store: Store, store_url: str, status: Status
) -> None:
    """The recipe writes a last one and prunes the oldest after the worker's last report."""
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=3.0, checkpoint_every_steps=1)
    job_id = await queue_job(store, settings)
    with worker(settings) as process:
        await eventually(lambda: reached(store, job_id, 5))
        values = {"status": status, "lease_token": Job.lease_token + 1, "lease_holder": None}
        async with store.begin() as session:
            await session.execute(update(Job).values(values))
        await eventually(lambda: not recipes_of(process))
        await eventually(lambda: are_there(store, settings, job_id))
    assert len(await checkpoint_steps(store, job_id)) == settings.keep_checkpoints


async def are_there(store: Store, settings: Settings, job_id: str) -> bool:
    return await checkpoint_steps(store, job_id) == checkpoint_folders(settings, job_id)
