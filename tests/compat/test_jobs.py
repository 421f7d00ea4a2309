"""Which jobs a synth-ai client is shown, on both databases."""

from typing import Any

import pytest

from app.compat.jobs import list_jobs
from app.compat.schemas import JobsQuery
from app.jobs.states import Status
from app.store.session import Store
from tests.rows import make_job, make_org

pytestmark = pytest.mark.anyio

CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["new", "old"]),
    ({"status": "FAILED"}, ["old"]),
    ({"model": "FT:test/a:X"}, ["old"]),
    ({"model": "test/a"}, ["new", "old"]),
    ({"file_id": "file-2"}, ["new"]),
    ({"created_after": "1500"}, ["new"]),
    ({"created_after": "1970-01-01T00:25:00"}, ["new"]),
    ({"created_before": "1970-01-01T01:25:00+01:00"}, ["old"]),
    ({"status": "failed", "file_id": "file-2"}, []),
]


async def test_jobs_are_found_by_what_is_asked_of_them(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        await make_job(session)
        old = {"id": "ftjob-1", "suffix": "old", "created_at": 1000.0, "status": Status.FAILED}
        await make_job(session, org, fine_tuned_model="ft:test/a:x", **old)
        await make_job(session, org, id="ftjob-2", suffix="new", created_at=2000.0, validation_file="file-2")
        for asked, names in CASES:
            page = await list_jobs(session, org.id, JobsQuery.model_validate(asked))
            assert [job.suffix for job in page.rows] == names, asked
