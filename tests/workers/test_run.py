"""One job's run, from its claim to each of its ends."""

import asyncio
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import update

from app.devices import leases
from app.devices.inventory import declared
from app.files.storage import Storage
from app.ids import new_id
from app.jobs import queue
from app.jobs.states import EventType, Stage, Status
from app.settings import Settings
from app.store.session import Store
from app.store.tables import Job
from tests.eventually import eventually
from tests.rows import CATALOG, chat_rows, give_credit, make_file, make_job, make_org, write_jsonl
from tests.workers.test_worker import assert_told_once, events_of, get_job, reached, settings_for
from workers.worker import _work_on_next

pytestmark = pytest.mark.anyio

DEVICES = declared(["CPU:1"])


async def new_job(store: Store, settings: Settings, *, n_rows: int = 10, **changes: Any) -> str:
    async with store.begin() as session:
        org = await make_org(session)
        await give_credit(session, org.id)
        file = await make_file(session, org)
        job = await make_job(session, org, training_file=file.id, **changes)
    write_jsonl(Storage(settings.data_dir).file(file.id), chat_rows(n_rows))
    return job.id


async def work(store: Store, settings: Settings, stop: asyncio.Event | None = None) -> bool:
    storage = Storage(settings.data_dir)
    return await _work_on_next(settings, store, storage, CATALOG, DEVICES, stop or asyncio.Event())


async def test_a_run_ends_with_a_job_to_publish_and_its_devices_free(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=0.0)
    job_id = await new_job(store, settings)
    assert await work(store, settings)
    job = await get_job(store, job_id)
    assert (job.status, job.stage, job.lease_holder) == (Status.RUNNING, Stage.PUBLISH, None)
    assert (job.trained_tokens, job.gpu_seconds > 0) == (240, True)
    await assert_told_once(store, settings, job_id)
    async with store.read() as session:
        assert await leases.held(session) == set()
    assert not await work(store, settings)


async def test_a_recipe_that_keeps_crashing_is_given_up(tmp_path: Path, store: Store, store_url: str) -> None:
    options = {"simulate_training_seconds": 0.0, "simulate_training_faults": ["crash_at_step:2"], "max_attempts": 2}
    settings = settings_for(tmp_path, store_url, **options)
    job_id = await new_job(store, settings)
    for _ in range(2):
        assert await work(store, settings)
        assert not await work(store, settings)
        async with store.begin() as session:
            await session.execute(update(Job).values(lease_expires_at=0.0))
    job = await get_job(store, job_id)
    assert (job.status, job.error and job.error["code"]) == (Status.FAILED, "training_crashed")
    assert [e.event_type for e in await events_of(store, job_id)].count(EventType.FAILED) == 1


async def test_a_recipe_that_says_what_is_wrong_is_believed(tmp_path: Path, store: Store, store_url: str) -> None:
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=0.0, simulate_training_faults=["nan"])
    job_id = await new_job(store, settings)
    await work(store, settings)
    job = await get_job(store, job_id)
    assert (job.status, job.error and job.error["code"]) == (Status.FAILED, "loss_not_finite")


async def test_a_recipe_that_the_kernel_kills_goes_on_with_half_the_rows_at_once_and_is_halved_once(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=20.0)
    job_id = await new_job(store, settings)
    before = (await get_job(store, job_id)).hyperparameters
    for _ in range(2):
        working = asyncio.create_task(work(store, settings))
        recipe = await eventually(lambda: recipe_of(job_id))
        recipe.kill()
        assert await asyncio.wait_for(working, 10)
        async with store.begin() as session:
            await session.execute(update(Job).values(lease_expires_at=0.0))
    job = await get_job(store, job_id)
    assert job.status == Status.RUNNING
    times = 2 * before["gradient_accumulation_steps"]
    assert job.hyperparameters == {**before, "batch_size": 1, "gradient_accumulation_steps": times}
    [warning] = [e for e in await events_of(store, job_id) if e.event_type == EventType.WARNING]
    assert warning.data == {"batch_size": 1, "gradient_accumulation_steps": times}


@pytest.mark.parametrize(("rows", "outcome"), [(4, (Status.RUNNING, Stage.PUBLISH)), (2, (Status.FAILED, Stage.TRAIN))])
async def test_a_recipe_that_has_ended_out_of_memory_is_tried_once_more_with_half_the_rows_at_once(
    tmp_path: Path, store: Store, store_url: str, rows: int, outcome: tuple[Status, Stage]
) -> None:
    """As when several GPUs share each weight, and one of them has no room."""
    options = {"simulate_training_seconds": 0.0, "simulate_training_faults": [f"memory_for_rows:{rows}"]}
    settings = settings_for(tmp_path, store_url, **options)
    job_id = await new_job(store, settings)
    async with store.begin() as session:
        job = await session.get_one(Job, job_id)
        job.hyperparameters = {**job.hyperparameters, "batch_size": 8}
    for _ in range(2):
        assert await work(store, settings)
        async with store.begin() as session:
            await session.execute(update(Job).values(lease_expires_at=0.0))
    job = await get_job(store, job_id)
    assert (job.status, job.stage) == outcome
    assert job.hyperparameters["batch_size"] == 4
    assert (job.error and job.error["code"]) == (None if job.status == Status.RUNNING else "out_of_memory")
    [warning] = [e for e in await events_of(store, job_id) if e.event_type == EventType.WARNING]
    assert warning.message.startswith("Memory ran out; training goes on with 4 rows at once and 2 times a step")


def recipe_of(job_id: str) -> psutil.Process | None:
    """Once it trains: a process that is only becoming the recipe has another command line."""
    for child in psutil.Process().children():
        try:
            if child.cmdline()[-1].endswith(job_id) and child.cmdline()[1] == "-m":
                return child
        except (psutil.Error, IndexError):
            continue
    return None


async def test_a_recipe_that_does_not_stop_in_time_costs_no_attempt(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    faults = {"simulate_training_faults": ["ignore_sigterm"], "shutdown_grace_seconds": 0.2}
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=8.0, **faults)
    job_id = await new_job(store, settings)
    stop = asyncio.Event()
    working = asyncio.create_task(work(store, settings, stop))
    await eventually(lambda: reached(store, job_id, 1))
    stop.set()
    await asyncio.wait_for(working, 10)
    job = await get_job(store, job_id)
    assert (job.status, job.attempts) == (Status.QUEUED, 0)


async def test_a_row_that_nothing_can_be_learned_from_fails_the_job_at_once_with_its_line(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    settings = settings_for(tmp_path, store_url)
    job_id = await new_job(store, settings)
    file = Storage(tmp_path).file((await get_job(store, job_id)).training_file)
    file.write_bytes(file.read_bytes().replace(b'"messages"', b'"massages"', 1).replace(b"{", b"\n{", 1))
    await work(store, settings)
    job = await get_job(store, job_id)
    assert (job.status, job.attempts) == (Status.FAILED, 1)
    assert job.error == {
        "code": "invalid_training_file",
        "message": "Line 2: not a JSON object with messages",
        "param": "training_file",
    }


@pytest.mark.parametrize("end", ["cancel", "pause"])
async def test_a_job_that_is_stopped_by_its_owner_is_let_go(
    tmp_path: Path, store: Store, store_url: str, end: str
) -> None:
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=8.0, checkpoint_every_steps=1000)
    job_id = await new_job(store, settings)
    working = asyncio.create_task(work(store, settings))
    await eventually(lambda: reached(store, job_id, 1))
    async with store.begin() as session:
        job = await session.get_one(Job, job_id)
        await (queue.pause(session, job) if end == "pause" else queue.cancel(session, CATALOG, job))
    await asyncio.wait_for(working, 5)
    assert (await get_job(store, job_id)).status == (Status.PAUSED if end == "pause" else Status.CANCELLED)
    async with store.read() as session:
        assert await leases.held(session) == set()
    if end == "pause":
        assert list((Storage(tmp_path).run(job_id) / "checkpoints").glob("step-*/state.json"))


async def test_a_job_whose_model_is_gone_fails_and_the_worker_goes_on(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    settings = settings_for(tmp_path, store_url)
    job_id = await new_job(store, settings, base_model="test/gone")
    assert await work(store, settings)
    job = await get_job(store, job_id)
    assert (job.status, job.error and job.error["code"]) == (Status.FAILED, "model_not_found")
    async with store.read() as session:
        assert await leases.held(session) == set()


async def test_a_job_whose_origin_is_gone_fails_and_says_so(tmp_path: Path, store: Store, store_url: str) -> None:
    settings = settings_for(tmp_path, store_url)
    origin = f"{new_id('ftjob')}/adapter"
    job_id = await new_job(store, settings, model="ft:test/a:ftjob-x", init_adapter=origin)
    assert await work(store, settings)
    job = await get_job(store, job_id)
    assert job.error == {
        "code": "model_not_found",
        "message": "ft:test/a:ftjob-x, which the job continues, is no longer there.",
        "param": None,
    }


async def test_a_job_that_killed_its_workers_is_given_up(tmp_path: Path, store: Store, store_url: str) -> None:
    settings = settings_for(tmp_path, store_url, max_attempts=2)
    job_id = await new_job(store, settings, attempts=2)
    assert await work(store, settings)
    job = await get_job(store, job_id)
    assert (job.status, job.error and job.error["code"]) == (Status.FAILED, "too_many_attempts")
