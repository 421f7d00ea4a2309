"""Lists: pages that stay sound while rows come and go, filters; and creations that are repeated."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import JOBS, MODEL, create_job, ok, refused, upload

pytestmark = pytest.mark.anyio


async def ids_of(client: AsyncClient, **params: Any) -> list[str]:
    return [file["id"] for file in ok(await client.get("/v1/files", params=params))["data"]]


async def test_pages_hold_every_old_row_once_while_rows_come_and_go(client: AsyncClient) -> None:
    old = [(await upload(client))["id"] for _ in range(7)]
    seen = await ids_of(client, limit=3)
    await upload(client)  # a new one
    ok(await client.delete(f"/v1/files/{seen[-1]}"))  # the cursor itself
    ok(await client.delete(f"/v1/files/{seen[0]}"))
    while more := await ids_of(client, limit=2, after=seen[-1]):
        seen += more
    assert seen == old[::-1]


async def test_a_page_says_where_it_begins_and_ends_and_whether_there_is_more(client: AsyncClient) -> None:
    assert ok(await client.get("/v1/files")) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    files = [(await upload(client))["id"] for _ in range(3)]
    page = ok(await client.get("/v1/files", params={"limit": 2}))
    assert (page["first_id"], page["last_id"], page["has_more"]) == (files[2], files[1], True)
    page = ok(await client.get("/v1/files", params={"limit": 3}))
    assert (page["first_id"], page["last_id"], page["has_more"]) == (files[2], files[0], False)
    assert await ids_of(client, order="asc") == files
    assert await ids_of(client, order="asc", after=files[0]) == files[1:]
    assert await ids_of(client, limit=10_000) == files[::-1]


async def test_jobs_are_filtered_by_their_metadata(client: AsyncClient) -> None:
    file_id = (await upload(client))["id"]
    jobs = [await create_job(client, training_file=file_id, metadata={"run": name, "a.b": "c"}) for name in "xy"]
    for job in jobs:
        ok(await client.post(f"{JOBS}/{job['id']}/cancel"))

    async def found(**metadata: str) -> list[str]:
        params = {f"metadata[{key}]": value for key, value in metadata.items()}
        return [job["id"] for job in ok(await client.get(JOBS, params=params))["data"]]

    assert await found(run="x") == [jobs[0]["id"]]
    assert await found(run="z") == []
    assert await found(**{"a.b": "c"}) == [jobs[1]["id"], jobs[0]["id"]]
    assert await found(**{"a' OR 1=1 --": "c"}) == await found(**{'"': "c"}) == []


async def test_a_repeated_creation_with_the_same_key_is_one_job(client: AsyncClient) -> None:
    file_id = (await upload(client))["id"]
    body, key = {"model": MODEL, "training_file": file_id}, {"Idempotency-Key": "once"}
    first, second = [ok(await client.post(JOBS, json=body, headers=key)) for _ in range(2)]
    assert first["id"] == second["id"]
    assert [job["id"] for job in ok(await client.get(JOBS))["data"]] == [first["id"]]
    refused(await client.post(JOBS, json={**body, "seed": 5}, headers=key), 409, param="Idempotency-Key")
    ok(await client.post(f"{JOBS}/{first['id']}/cancel"))
