"""A job succeeds when its adapter has answered, once, and not when the job is over by then."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import nan
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.billing.ledger import list_entries
from app.devices.inventory import declared
from app.engines.pool import EnginePool
from app.files.storage import Storage
from app.jobs import queue
from app.jobs.states import EventType, Stage, Status
from app.store.session import Store
from app.store.tables import File, Job
from app.upkeep.publish import Publisher
from app.upkeep.results import SETTLED_SECONDS, save_results_of_ended
from tests.engines.running import simulating
from tests.eventually import eventually
from tests.rows import CATALOG, make_job
from tests.workers.test_worker import events_of, get_job
from workers.simulated_adapter import tiny_safetensors

pytestmark = pytest.mark.anyio

METRICS = (
    b'{"kind": "step", "step": 1, "train_loss": 2.5}\n{"kind": "step", "step": 1, "train_loss": 0.5}\n{"kind": "st'
)


@asynccontextmanager
async def publishing(folder: Path, store: Store, **changes: Any) -> AsyncIterator[Publisher]:
    settings, storage = simulating(folder, **changes), Storage(folder)
    pool = EnginePool(settings, store, storage, declared(["CPU:1"]))
    try:
        yield Publisher(settings, store, storage, CATALOG, pool)
    finally:
        await pool.drain(grace_seconds=0.1)


async def trained_job(store: Store, storage: Storage, *, rank: int = 8, weight: float = 1.0, **changes: Any) -> str:
    changes = {"status": Status.RUNNING, "stage": Stage.PUBLISH, **changes}
    async with store.begin() as session:
        job = await make_job(session, trained_tokens=1000, gpu_seconds=100.0, **changes)
    adapter = storage.adapter(job.id, "adapter")
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(f'{{"r": {rank}}}')
    (adapter / "adapter_model.safetensors").write_bytes(tiny_safetensors(weight))
    (storage.run(job.id) / "metrics.jsonl").write_bytes(METRICS)
    return job.id


async def test_a_trained_job_succeeds_once_with_its_metrics_and_its_charge(tmp_path: Path, store: Store) -> None:
    storage = Storage(tmp_path)
    job_id = await trained_job(store, storage)
    async with publishing(tmp_path, store) as publisher:
        assert sorted(await asyncio.gather(*(publisher.step() for _ in range(3)))) == [False, False, True]
    job = await get_job(store, job_id)
    assert (job.status, job.fine_tuned_model) == (Status.SUCCEEDED, f"ft:test/a:{job_id}")
    [result] = job.result_files
    assert storage.file(result).read_text().splitlines()[1].startswith("1,,0.5,")
    assert [event.event_type for event in await events_of(store, job_id)] == [EventType.COMPLETED]
    async with store.read() as session:
        assert [entry.amount_micros for entry in await list_entries(session, job.org_id)] == [-14_000]
        assert [file.id for file in await session.scalars(select(File))] == [result]


async def test_a_job_that_is_cancelled_while_it_is_published_stays_cancelled(tmp_path: Path, store: Store) -> None:
    job_id = await trained_job(store, Storage(tmp_path))
    async with publishing(tmp_path, store, simulate_start_seconds=0.5) as publisher:
        step = asyncio.create_task(publisher.step())
        await eventually(lambda: is_held(store, job_id))
        async with store.begin() as session:
            await queue.cancel(session, CATALOG, await session.get_one(Job, job_id))
        assert await step
    job = await get_job(store, job_id)
    assert (job.status, job.fine_tuned_model, job.result_files) == (Status.CANCELLED, None, [])
    async with store.read() as session:
        assert list(await session.scalars(select(File))) == []
        assert len(await list_entries(session, job.org_id)) == 1


async def is_held(store: Store, job_id: str) -> bool:
    return (await get_job(store, job_id)).lease_holder is not None


async def test_what_cannot_be_served_is_tried_again_and_then_given_up(tmp_path: Path, store: Store) -> None:
    job_id = await trained_job(store, Storage(tmp_path), rank=512)
    async with publishing(tmp_path, store, max_attempts=2) as publisher:
        assert await publisher.step()
        assert (await get_job(store, job_id)).status == Status.RUNNING
        assert not await publisher.step()
        async with store.begin() as session:
            await session.execute(update(Job).values(lease_expires_at=0.0))
        assert await publisher.step()
    job = await get_job(store, job_id)
    assert (job.status, job.error and job.error["code"]) == (Status.FAILED, "publish_failed")
    assert job.error
    assert str(tmp_path) not in job.error["message"]


@pytest.mark.parametrize(("weight", "code"), [(0.0, "adapter_changes_nothing"), (nan, "adapter_not_finite")])
async def test_an_adapter_that_is_itself_at_fault_fails_its_job_at_once(
    tmp_path: Path, store: Store, weight: float, code: str
) -> None:
    job_id = await trained_job(store, Storage(tmp_path), weight=weight)
    async with publishing(tmp_path, store) as publisher:
        assert await publisher.step()
    job = await get_job(store, job_id)
    assert (job.status, job.attempts, job.error and job.error["code"]) == (Status.FAILED, 1, code)
    assert job.error
    assert "learning_rate" in job.error["message"]


@pytest.mark.parametrize(
    ("weight", "outcome"), [(1.0, (Status.SUCCEEDED, None)), (nan, (Status.FAILED, "adapter_not_finite"))]
)
async def test_a_full_fine_tune_is_tried_on_an_engine_of_its_own(
    tmp_path: Path, store: Store, weight: float, outcome: tuple[Status, str | None]
) -> None:
    storage = Storage(tmp_path)
    job_id = await trained_job(store, storage, training_type="full")
    folder = storage.adapter(job_id, "adapter")
    (folder / "answers.json").write_text('{"a": "b"}')
    (folder / "model.safetensors").write_bytes(tiny_safetensors(weight))
    async with publishing(tmp_path, store) as publisher:
        assert await publisher.step()
    job = await get_job(store, job_id)
    assert (job.status, job.error and job.error["code"]) == outcome


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
async def test_a_job_that_ended_otherwise_has_its_metrics_as_a_result_too(
    tmp_path: Path, store: Store, status: Status
) -> None:
    settings, storage = simulating(tmp_path), Storage(tmp_path)
    finished_at = time.time() - 2 * SETTLED_SECONDS
    ended = await trained_job(store, storage, status=status, finished_at=finished_at)
    running = await trained_job(store, storage)
    recent = await trained_job(store, storage, status=status, finished_at=time.time())
    await asyncio.gather(*(save_results_of_ended(settings, store, storage) for _ in range(2)))
    [result] = (await get_job(store, ended)).result_files
    assert storage.file(result).read_text().splitlines()[1].startswith("1,,0.5,")
    assert [(await get_job(store, job_id)).result_files for job_id in (running, recent)] == [[], []]
    async with store.read() as session:
        assert [file.id for file in await session.scalars(select(File))] == [result]
