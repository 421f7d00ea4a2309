"""Workers as processes: killed, told to stop, and cut off from their database; the job goes on, told once."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.catalog.load import load_catalog
from app.catalog.spec import GpuChoice
from app.devices import leases
from app.devices.inventory import Use, declared
from app.devices.wishes import Wish, list_wishes
from app.files.storage import Storage
from app.jobs import queue
from app.jobs.events import list_after
from app.jobs.living_workers import list_living
from app.jobs.metrics import read_metrics
from app.jobs.states import EventType, Stage, Status
from app.settings import ROOT, Settings
from app.store.session import Store
from app.store.tables import Checkpoint, DeviceLease, Job, JobEvent
from tests.eventually import eventually
from tests.rows import CATALOG, chat_rows, give_credit, make_file, make_job, make_org, write_jsonl
from tests.stores import crash_and_restart
from tests.workers.forks import fork, status
from workers.metrics import tell
from workers.worker import claim_next, main, share_out

pytestmark = pytest.mark.anyio

DEMO = load_catalog(ROOT / "models.yaml").models[0]


def settings_for(folder: Path, url: str, **changes: Any) -> Settings:
    quick = {"lease_seconds": 1.5, "poll_seconds": 0.1, "checkpoint_every_steps": 3, "shutdown_grace_seconds": 5.0}
    values: dict[str, Any] = {"data_dir": folder, "database_url": url, "simulate": True, "devices": ["CPU:1"]}
    return Settings(**{**values, **quick, **changes})


@contextmanager
def worker(settings: Settings) -> Iterator[BaseProcess]:
    process = fork(work_as_asked, settings.as_environment(), log=settings.data_dir / "worker.log")
    try:
        yield process
    finally:
        process.kill()
        process.join()


def work_as_asked(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    main()


async def queue_job(store: Store, settings: Settings, **changes: Any) -> str:
    storage = Storage(settings.data_dir)
    async with store.begin() as session:
        org = await make_org(session)
        await give_credit(session, org.id)
        file = await make_file(session, org)
        job = await make_job(session, org, base_model=DEMO.id, model=DEMO.id, training_file=file.id, **changes)
    write_jsonl(storage.file(file.id), chat_rows())
    return job.id


async def get_job(store: Store, job_id: str) -> Job:
    async with store.read() as session:
        return await session.get_one(Job, job_id)


async def events_of(store: Store, job_id: str) -> list[JobEvent]:
    async with store.read() as session:
        return await list_after(session, job_id, 0, limit=1000)


async def reached(store: Store, job_id: str, step: int) -> bool:
    return any(event.data.get("step", 0) >= step for event in await events_of(store, job_id))


async def trained(store: Store, job_id: str) -> None:
    await eventually(lambda: is_trained(store, job_id), within_seconds=30)


async def is_trained(store: Store, job_id: str) -> bool:
    return (await get_job(store, job_id)).stage == Stage.PUBLISH


async def assert_told_once(store: Store, settings: Settings, job_id: str) -> None:
    """Every whole line of the metrics is one event of the history, in its order; the numbers are dense."""
    events = await events_of(store, job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    records, size = read_metrics(Storage(settings.data_dir).run(job_id) / "metrics.jsonl")
    expected = [told.event_type for record in records for told in tell(record, attempt=1)]
    told_types = [event.event_type for event in events if event.event_type != EventType.RESTARTED]
    assert told_types == [type_ for type_ in expected if type_ != EventType.RESTARTED]
    assert (await get_job(store, job_id)).metrics_offset == size


async def checkpoint_steps(store: Store, job_id: str) -> set[int]:
    async with store.read() as session:
        return set(await session.scalars(select(Checkpoint.step).where(Checkpoint.job_id == job_id)))


def checkpoint_folders(settings: Settings, job_id: str) -> set[int]:
    folders = (Storage(settings.data_dir).run(job_id) / "checkpoints").iterdir()
    return {int(path.name.removeprefix("step-")) for path in folders}


async def test_a_killed_workers_job_goes_on_under_another_and_is_told_once(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=3.0)
    job_id = await queue_job(store, settings)
    with worker(settings) as first:
        await eventually(lambda: reached(store, job_id, 5))
        first.kill()
    with worker(settings):
        await trained(store, job_id)
    await assert_told_once(store, settings, job_id)
    [restarted] = [e for e in await events_of(store, job_id) if e.event_type == EventType.RESTARTED]
    assert restarted.data["step"] >= 3
    assert await checkpoint_steps(store, job_id) == checkpoint_folders(settings, job_id)


async def test_a_worker_told_to_stop_gives_the_job_back_with_a_checkpoint(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    settings = settings_for(tmp_path, store_url, simulate_training_seconds=8.0, checkpoint_every_steps=1000)
    job_id = await queue_job(store, settings)
    with worker(settings) as process:
        await eventually(lambda: reached(store, job_id, 1))
        process.terminate()
        assert status(process, 15) == 0
    job = await get_job(store, job_id)
    assert (job.status, job.attempts, job.lease_holder) == (Status.QUEUED, 0, None)
    assert job.gpu_seconds > 0
    assert len(await checkpoint_steps(store, job_id)) == 1
    assert await checkpoint_steps(store, job_id) == checkpoint_folders(settings, job_id)
    async with store.read() as session:
        assert await session.scalar(select(func.count()).select_from(DeviceLease)) == 0
        assert await list_living(session) == []
    await assert_told_once(store, settings, job_id)


async def test_postgresql_restarted_in_mid_run_loses_nothing(tmp_path: Path, restartable: tuple[Path, str]) -> None:
    folder, url = restartable
    store, settings = Store(url), settings_for(tmp_path, url, simulate_training_seconds=3.0)
    job_id = await queue_job(store, settings)
    with worker(settings) as process:
        await eventually(lambda: reached(store, job_id, 3))
        await asyncio.to_thread(crash_and_restart, folder)
        await trained(store, job_id)
        assert process.is_alive()
    await assert_told_once(store, settings, job_id)
    await store.close()


async def test_a_claim_takes_the_job_and_its_devices_or_neither(tmp_path: Path, store: Store, store_url: str) -> None:
    settings, devices = settings_for(tmp_path, store_url), declared(["CPU:1"])
    first, second = [await queue_job(store, settings) for _ in range(2)]
    claims = await asyncio.gather(*(claim_next(settings, store, CATALOG, devices) for _ in range(4)))
    [(job, lease, _)] = [claimed for claimed in claims if claimed]
    assert job.id == first
    assert (await get_job(store, second)).status == Status.QUEUED
    async with store.begin() as session:
        await leases.release(session, lease.holder)
    claimed = await claim_next(settings, store, CATALOG, devices)
    assert claimed
    assert claimed[0].id == second


async def test_a_worker_claims_only_what_fits_its_gpus(tmp_path: Path, store: Store, store_url: str) -> None:
    settings = settings_for(tmp_path, store_url)
    devices = [replace(device, memory_bytes=40) for device in declared(["A100:2"])]
    for gpu, memory_bytes in (("H100", 1), ("A100:4", 1), ("A100", 80)):
        await queue_job(store, settings, gpu=gpu, memory_bytes=memory_bytes)
    assert await claim_next(settings, store, CATALOG, devices) is None
    assert await wishes_of(store) == []
    fits = await queue_job(store, settings, gpu="A100:2", memory_bytes=40)
    claimed = await claim_next(settings, store, CATALOG, devices)
    assert claimed
    assert claimed[0].id == fits


@pytest.mark.parametrize(
    ("waiting", "held", "claimable", "wished"),
    [
        ("A100 A100:2 CPU", "", "A100 A100:2 CPU", ""),
        ("A100:3 A100 CPU", "A100/0", "CPU", "A100:2"),  # the younger does not overtake; one is training's anyway
        ("A100 A100:2 A100", "A100/0 A100/2", "A100", "A100:2"),
        ("A100:4 A100", "A100/0", "A100", ""),  # four are not here: that job is another host's
        ("A100 CPU A100 CPU", "A100/0 A100/1 A100/2 CPU/0", "", "A100 CPU"),  # one of each type is wished for
        ("H100", "", "", ""),
    ],
)
def test_the_oldest_job_of_each_gpu_type_comes_first(waiting: str, held: str, claimable: str, wished: str) -> None:
    jobs = [(f"ftjob-{n}", GpuChoice.parse(gpu)) for n, gpu in enumerate(waiting.split())]
    devices = declared(["A100:3", "CPU"])
    devices[2] = replace(devices[2], use=Use.TRAINING)
    can, would = share_out(jobs, devices, {f"{devices[0].host}/{name}" for name in held.split()})
    assert (" ".join(can), " ".join(str(gpu) for gpu in would.values())) == (claimable, wished)


async def test_a_worker_that_lacks_devices_wishes_for_them_until_it_has_them(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    settings, devices = settings_for(tmp_path, store_url), declared(["CPU:1"])
    async with store.begin() as session:
        assert await leases.acquire(session, devices, GpuChoice.parse("CPU"), "engine_1", seconds=60)
    job_id = await queue_job(store, settings)
    for _ in range(2):
        assert await claim_next(settings, store, CATALOG, devices) is None
        assert [wish.holder for wish in await wishes_of(store)] == [job_id]
    async with store.begin() as session:
        await leases.release(session, "engine_1")
    assert await claim_next(settings, store, CATALOG, devices)
    assert await wishes_of(store) == []


async def test_nobody_wishes_for_a_job_that_is_cancelled(tmp_path: Path, store: Store, store_url: str) -> None:
    settings, devices = settings_for(tmp_path, store_url), declared(["CPU:1"])
    async with store.begin() as session:
        assert await leases.acquire(session, devices, GpuChoice.parse("CPU"), "engine_1", seconds=60)
    job_id = await queue_job(store, settings)
    await claim_next(settings, store, CATALOG, devices)
    async with store.begin() as session:
        await queue.cancel(session, CATALOG, await session.get_one(Job, job_id))
    await claim_next(settings, store, CATALOG, devices)
    assert await wishes_of(store) == []


async def wishes_of(store: Store) -> list[Wish]:
    async with store.read() as session:
        return await list_wishes(session, socket.gethostname())


async def test_a_job_that_goes_back_is_not_begun_again_while_its_earlier_recipe_has_devices(
    tmp_path: Path, store: Store, store_url: str
) -> None:
    settings, devices = settings_for(tmp_path, store_url), declared(["CPU:2"])
    await queue_job(store, settings)
    claimed = await claim_next(settings, store, CATALOG, devices)
    assert claimed
    async with store.begin() as session:
        await queue.give_back(session, claimed[1])
    assert await claim_next(settings, store, CATALOG, devices) is None
    async with store.begin() as session:
        await leases.release(session, claimed[1].holder)
    again = await claim_next(settings, store, CATALOG, devices)
    assert again
    assert again[1].holder != claimed[1].holder
