"""What an organisation may have, whoever makes more of it at the same time."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.files.service import NoRoom, add
from app.files.storage import Storage
from app.ids import new_id
from app.jobs.service import TooManyQueued, require_place
from app.jobs.states import Status
from app.orgs.quotas import Quotas
from app.settings import Settings
from app.store.session import Store
from app.store.tables import File, Job, Org
from tests.rows import make_file, make_job, make_org

pytestmark = pytest.mark.anyio


def a_file(org_id: str, storage: Storage) -> File:
    words = {"filename": "f", "purpose": "fine-tune", "sha256": "0" * 64, "status": "processed"}
    file = File(id=new_id("file"), org_id=org_id, size_bytes=10, **words)
    storage.file(file.id).write_bytes(b"x" * 10)
    return file


@pytest.mark.parametrize("quotas", [Quotas(3, 10**9, 0), Quotas(100, 39, 0)])
async def test_uploads_at_the_same_time_do_not_pass_the_quota_together(
    tmp_path: Path, store: Store, store_url: str, quotas: Quotas
) -> None:
    storage, second = Storage(tmp_path), Store(store_url)
    async with store.begin() as session:
        org, other = await make_org(session), await make_org(session)
        await make_file(session, other, size_bytes=1000)
        await make_file(session, org, size_bytes=1000, deleted_at=1.0)
    files = [a_file(org.id, storage) for _ in range(8)]
    adding = (add(each, storage, file, None, quotas) for each, file in zip([store, second] * 4, files, strict=True))
    done = await asyncio.gather(*adding, return_exceptions=True)
    await second.close()
    assert [type(each) for each in done].count(NoRoom) == 5
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == sorted(
        each.id for each in done if isinstance(each, File)
    )


async def test_jobs_queued_at_the_same_time_do_not_pass_the_quota_together(store: Store, store_url: str) -> None:
    second = Store(store_url)
    async with store.begin() as session:
        org = await make_org(session)
        await make_job(session, org, status=Status.RUNNING)
        await make_job(session)

    async def queue_one(mine: Store) -> None:
        async with mine.begin() as session:
            await make_job(session, org)
            await require_place(session, org.id, max_queued=3)

    done = await asyncio.gather(*(queue_one(each) for each in [store, second] * 4), return_exceptions=True)
    await second.close()
    assert [type(each) for each in done].count(TooManyQueued) == 5
    async with store.read() as session:
        assert await session.scalar(select(func.count()).select_from(Job).where(Job.org_id == org.id)) == 4


def test_an_organisations_own_quota_goes_before_the_servers() -> None:
    settings = Settings(max_stored_files=5, max_stored_bytes=50, max_queued_jobs=7)
    assert Quotas.of(Org(max_stored_files=None, max_stored_bytes=60, max_queued_jobs=0), settings) == Quotas(5, 60, 0)
