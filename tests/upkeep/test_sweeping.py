"""Sweeping, on a store and a data dir as they are after a month."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from app.catalog.names import adapter_id
from app.files.storage import Storage
from app.ids import new_id
from app.jobs.states import Status
from app.store.session import Store
from app.store.tables import Adapter, Checkpoint, EngineStatus, IdempotencyKey, Job, JobEvent, Org, RateLevel, UnderWay
from app.upkeep.sweeping import (
    MAX_ROWS,
    Swept,
    sweep_all,
    sweep_deleted_orgs,
    sweep_disk,
    sweep_idempotency_keys,
    sweep_job_events,
    sweep_rate_levels,
    sweep_under_way,
)
from tests.rows import make_file, make_job, make_org

pytestmark = pytest.mark.anyio

LONG_AGO = time.time() - 100 * 24 * 3600


def lay(path: Path, *, is_folder: bool = False, at: float = LONG_AGO) -> Path:
    """Something in the data dir, ten bytes of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_folder:
        path.mkdir()
    (path / "weights" if is_folder else path).write_bytes(b"x" * 10)
    os.utime(path, (at, at))
    return path


async def old_org(store: Store) -> Org:
    async with store.begin() as session:
        org = await make_org(session)
        org.created_at = LONG_AGO - 1
    return org


async def ended_job(store: Store, org: Org, status: Status = Status.SUCCEEDED) -> Job:
    async with store.begin() as session:
        job = await make_job(session, org, status=status, finished_at=LONG_AGO)
        session.add(Checkpoint(id=new_id("ftckpt"), job_id=job.id, step=10, metrics={}))
    return job


async def publish(store: Store, job: Job, *, deleted_at: float | None = None) -> None:
    async with store.begin() as session:
        session.add(
            Adapter(
                id=adapter_id(job.id),
                org_id=job.org_id,
                job_id=job.id,
                name=job.id,
                base_model=job.base_model,
                deleted_at=deleted_at,
            )
        )


def lay_run(storage: Storage, job: Job) -> list[Path]:
    parts = [
        lay(storage.adapter(job.id, folder), is_folder=True)
        for folder in ("adapter", "checkpoints/step-10", "checkpoints/step-20")
    ]
    parts.append(lay(storage.run(job.id) / "checkpoints" / "step-30.tmp", is_folder=True))
    lay(storage.run(job.id) / "metrics.jsonl")
    return parts


async def test_bytes_without_a_row_go_once_they_are_old(tmp_path: Path, store: Store) -> None:
    storage, org = Storage(tmp_path), await old_org(store)
    async with store.begin() as session:
        kept = (await make_file(session, org)).id
        deleted = (await make_file(session, org, deleted_at=LONG_AGO)).id
    lost, fresh = new_id("file"), new_id("file")
    for file_id in (kept, deleted, lost):
        lay(storage.file(file_id))
    lay(storage.file(lost).with_suffix(".part"))
    lay(storage.file(fresh), at=time.time())
    told = [Swept("bytes of deleted files", 2, 20), Swept("broken uploads", 1, 10)]
    assert sorted(await sweep_disk(store, storage, dry=True), key=str) == sorted(told, key=str)
    assert len(list((tmp_path / "files").iterdir())) == 5
    await sweep_disk(store, storage, dry=False)
    assert {path.name for path in (tmp_path / "files").iterdir()} == {kept, fresh}


async def test_a_run_keeps_what_can_be_chatted_with_and_its_metrics(tmp_path: Path, store: Store) -> None:
    storage, org = Storage(tmp_path), await old_org(store)
    served, deleted = await ended_job(store, org), await ended_job(store, org)
    failed, running = await ended_job(store, org, Status.FAILED), await ended_job(store, org, Status.RUNNING)
    await publish(store, served)
    await publish(store, deleted, deleted_at=LONG_AGO)
    laid = {job.id: lay_run(storage, job) for job in (served, deleted, failed, running)}
    await sweep_disk(store, storage, dry=False)
    left = {job_id: [path.name for path in parts if path.exists()] for job_id, parts in laid.items()}
    assert left == {
        served.id: ["adapter", "step-10"],
        deleted.id: [],
        failed.id: ["step-10"],
        running.id: ["adapter", "step-10", "step-20", "step-30.tmp"],
    }
    assert all((storage.run(job_id) / "metrics.jsonl").exists() for job_id in laid)


async def test_a_deleted_model_stays_while_an_engine_has_it_or_a_job_begins_with_it(
    tmp_path: Path, store: Store
) -> None:
    storage, org = Storage(tmp_path), await old_org(store)
    jobs = [await ended_job(store, org) for _ in range(3)]
    loaded, base, own = jobs
    for job in jobs:
        await publish(store, job, deleted_at=LONG_AGO)
        lay_run(storage, job)
    async with store.begin() as session:
        beginning = await make_job(session, org, init_adapter=f"{base.id}/adapter")
        session.add(engine_with(adapter_id(loaded.id)))
        session.add(engine_on(f"ft:{own.base_model}:{own.id}:ckpt-step-10"))
    await sweep_disk(store, storage, dry=False)
    assert all(storage.adapter(job.id, "adapter").exists() for job in jobs)
    async with store.begin() as session:
        (await session.get_one(Job, beginning.id)).status = Status.CANCELLED
        await session.execute(delete(EngineStatus))
    await sweep_disk(store, storage, dry=False)
    assert not any(storage.adapter(job.id, "adapter").exists() for job in jobs)


def engine_with(adapter: str) -> EngineStatus:
    return an_engine("m", [adapter])


def engine_on(model: str) -> EngineStatus:
    return an_engine(model, [])


def an_engine(model: str, adapters: list[str]) -> EngineStatus:
    numbers = {"since": 0.0, "in_flight": 0, "tokens_per_second": 0.0, "memory_bytes": 0}
    words = {"id": new_id("engine"), "host": "h", "model": model, "gpu": "CPU", "state": "ready"}
    return EngineStatus(**words, **numbers, adapters=adapters, expires_at=time.time() + 600)


async def test_a_run_of_no_job_goes_and_so_do_logs_of_engines_that_are_gone(tmp_path: Path, store: Store) -> None:
    storage = Storage(tmp_path)
    await old_org(store)
    run = lay(storage.run(new_id("ftjob")), is_folder=True)
    os.utime(run / "weights", (LONG_AGO, LONG_AGO))
    logs = [lay(storage.engines / name) for name in ("m-CPU.log", "m-CPU.log.1")]
    record = lay(storage.engines / "abc.json")
    await sweep_disk(store, storage, dry=False)
    assert [path.exists() for path in (run, *logs)] == [False, True, False]
    record.unlink()
    await sweep_disk(store, storage, dry=False)
    assert not logs[0].exists()


async def test_of_a_job_that_ended_long_ago_the_last_event_stays(store: Store) -> None:
    org = await old_org(store)
    async with store.begin() as session:
        old = await make_job(session, org, status=Status.FAILED, finished_at=LONG_AGO, last_seq=MAX_ROWS + 3)
        young = await make_job(session, org, status=Status.FAILED, finished_at=time.time(), last_seq=2)
        for job in (old, young):
            session.add_all(an_event(job.id, seq) for seq in range(1, job.last_seq + 1))
    assert await sweep_job_events(store, 90, dry=True) == [Swept("events of old jobs", MAX_ROWS + 2)]
    await sweep_job_events(store, 90, dry=False)
    async with store.read() as session:
        left = {(event.job_id, event.seq) for event in await session.scalars(select(JobEvent))}
    assert left == {(old.id, MAX_ROWS + 3), (young.id, 1), (young.id, 2)}


def an_event(job_id: str, seq: int) -> JobEvent:
    words = {"level": "info", "type": "message", "event_type": "x", "message": "m"}
    return JobEvent(id=new_id("ftevent"), job_id=job_id, seq=seq, data={}, **words)


async def test_what_a_deleted_organisation_had_goes_but_for_what_is_trained_on(tmp_path: Path, store: Store) -> None:
    org, storage = await old_org(store), Storage(tmp_path)
    await publish(store, await ended_job(store, org))
    async with store.begin() as session:
        files = [await make_file(session, org) for _ in range(2)]
        await make_job(session, org, status=Status.RUNNING, training_file=files[0].id)
        (await session.get_one(Org, org.id)).deleted_at = LONG_AGO
    for file in files:
        lay(storage.file(file.id))
    swept = await sweep_deleted_orgs(store, dry=False)
    assert [each.count for each in swept] == [1, 1]
    await sweep_disk(store, storage, dry=False)
    assert [storage.file(file.id).exists() for file in files] == [True, False]


async def test_a_rate_limit_that_nobody_uses_is_forgotten(store: Store) -> None:
    async with store.begin() as session:
        session.add_all(RateLevel(subject=name, full_at=at) for name, at in (("old", 1.0), ("young", time.time())))
    await sweep_rate_levels(store, dry=False)
    async with store.read() as session:
        assert list(await session.scalars(select(RateLevel.subject))) == ["young"]


async def test_what_ran_on_a_gateway_that_is_gone_is_forgotten(store: Store) -> None:
    async with store.begin() as session:
        for gateway, at in (("gone", 1.0), ("here", time.time())):
            session.add(UnderWay(gateway=gateway, subject="org", number=1, expires_at=at))
    await sweep_under_way(store, dry=False)
    async with store.read() as session:
        assert list(await session.scalars(select(UnderWay.gateway))) == ["here"]


async def test_two_gateways_sweep_beside_each_other(tmp_path: Path, store: Store, store_url: str) -> None:
    """The same key of another organisation, used today, stays."""
    org, other = await old_org(store), await old_org(store)
    async with store.begin() as session:
        keys = {"request_hash": "h", "object_id": "o"}
        session.add_all(
            IdempotencyKey(org_id=org.id, key=f"k{n}", created_at=LONG_AGO, **keys) for n in range(MAX_ROWS + 1)
        )
        session.add(IdempotencyKey(org_id=other.id, key="k1", **keys))
    second = Store(store_url)
    await asyncio.gather(*(sweep_idempotency_keys(each, dry=False) for each in (store, second)))
    await second.close()
    async with store.read() as session:
        assert list(await session.scalars(select(IdempotencyKey.org_id))) == [other.id]


async def test_a_sweep_that_fails_does_not_keep_the_others_from_theirs() -> None:
    async def broken(*, dry: bool) -> list[Swept]:
        raise OSError("the disk is away")

    async def whole(*, dry: bool) -> list[Swept]:
        return [Swept("x", 1), Swept("nothing", 0)]

    assert await sweep_all([broken, whole]) == [Swept("x", 1)]
