"""Jobs that do not run through: cancelled, paused, their worker killed."""

import os
import signal
from typing import Any

import psutil
import pytest
from httpx import AsyncClient

from app.catalog.load import load_catalog
from app.jobs.cost import cost_micros
from app.settings import Settings
from app.store.session import Store
from app.store.tables import Job
from tests.asking import (
    CHAT,
    JOBS,
    MODEL,
    chat,
    chat_body,
    create_job,
    events_of,
    job_in,
    leave_funds,
    ledger_of,
    ok,
    refused,
    upload,
)
from tests.eventually import eventually
from tests.servers import Server

pytestmark = pytest.mark.anyio


async def events(client: AsyncClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    page = ok(await client.get(f"{JOBS}/{job['id']}/events", params={"limit": 100, "order": "asc"}))
    told: list[dict[str, Any]] = page["data"]
    return told


async def half_way(client: AsyncClient, **fields: Any) -> dict[str, Any]:
    """A job that hangs at step 5, its checkpoint of that step told."""
    job = await create_job(client, **fields)

    async def has_checkpoint() -> bool:
        return any(event["event_type"] == "sft.checkpoint" for event in await events(client, job))

    await eventually(has_checkpoint)
    return job


def recipes(server: Server) -> list[psutil.Process]:
    return [child for child in children(server) if "workers.simulated_sft" in cmdline(child)]


def worker(server: Server) -> psutil.Process:
    return next(child for child in children(server) if "workers.worker" in cmdline(child))


def children(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


def cmdline(process: psutil.Process) -> list[str]:
    """Empty for one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_a_cancelled_job_ends_at_once_and_one_that_waited_is_never_begun(
    hanging_server: Server, hanging: AsyncClient
) -> None:
    job, waiting = await half_way(hanging), await create_job(hanging)
    for each in (waiting, job):
        assert ok(await hanging.post(f"{JOBS}/{each['id']}/cancel"))["status"] == "cancelled"
    await eventually(lambda: not recipes(hanging_server))
    told = events_of(await hanging.get(f"{JOBS}/{job['id']}/events", params={"stream": "true"}))
    assert told[-1]["event_type"] == "sft.cancelled"
    assert not any("failed" in event["event_type"] for event in told)
    over = ok(await hanging.get(f"{JOBS}/{job['id']}"))
    assert (over["status"], over["fine_tuned_model"]) == ("cancelled", None)
    assert over["finished_at"] is not None
    assert [event["event_type"] for event in await events(hanging, waiting)] == ["sft.created", "sft.cancelled"]
    [charge] = await ledger_of(hanging_server, hanging, "training")
    assert charge.source == f"job:{job['id']}"
    assert charge.trained_tokens > 0


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
async def test_what_is_over_cannot_be_changed(client: AsyncClient, action: str) -> None:
    job = await create_job(client)
    ok(await client.post(f"{JOBS}/{job['id']}/cancel", json={}))
    refused(await client.post(f"{JOBS}/{job['id']}/{action}"), 400, code="invalid_job_state")
    assert ok(await client.get(f"{JOBS}/{job['id']}"))["status"] == "cancelled"


async def test_a_paused_job_goes_on_from_its_checkpoint(hanging_server: Server, hanging: AsyncClient) -> None:
    job = await half_way(hanging)
    assert ok(await hanging.post(f"{JOBS}/{job['id']}/pause"))["status"] == "paused"
    refused(await hanging.post(f"{JOBS}/{job['id']}/pause"), 400, code="invalid_job_state")
    await eventually(lambda: not recipes(hanging_server))
    assert ok(await hanging.get(f"{JOBS}/{job['id']}"))["status"] == "paused"
    assert ok(await hanging.post(f"{JOBS}/{job['id']}/resume"))["status"] == "queued"
    await job_in(hanging, job["id"], "succeeded")
    told = [event["event_type"] for event in await events(hanging, job)]
    assert told.index("sft.paused") < told.index("sft.resumed") < told.index("workflow.completed")
    assert await steps(hanging, job) == list(range(1, 11))


async def test_a_job_that_runs_out_of_credit_waits_for_it_with_its_checkpoint_and_then_goes_on_to_its_end(
    hanging_server: Server, hanging: AsyncClient
) -> None:
    job = await half_way(hanging)
    org_id = job["organization_id"]
    await leave_funds(hanging_server, org_id, await cost_so_far(hanging_server, job["id"]) + 150)  # 5 s of the CPU
    await job_in(hanging, job["id"], "paused")
    await eventually(lambda: not recipes(hanging_server))
    left = await cost_so_far(hanging_server, job["id"])
    body = chat_body(max_tokens=4000)
    assert (await hanging.post(CHAT, json=body)).status_code in (402, 429), "what the job has cost is there no more"
    await leave_funds(hanging_server, org_id, left + 10**7)
    await job_in(hanging, job["id"], "succeeded")
    told = await events(hanging, job)
    assert "credit" in next(event["message"] for event in told if event["event_type"] == "sft.paused")
    assert [event["event_type"] for event in told].count("sft.resumed") == 1
    assert await steps(hanging, job) == list(range(1, 11))
    [charge] = await ledger_of(hanging_server, hanging, "training")
    assert -charge.amount_micros > left
    assert ok(await hanging.get("/v1/balance/current"))["balance_cents"] >= 0


async def cost_so_far(server: Server, job_id: str) -> int:
    settings = Settings(data_dir=server.data_dir)
    store = Store(settings.store_url)
    async with store.read() as session:
        job = await session.get_one(Job, job_id)
    await store.close()
    return cost_micros(load_catalog(settings.catalog), job)


async def test_a_job_whose_worker_is_killed_goes_on_from_its_checkpoint(
    hanging_server: Server, hanging: AsyncClient
) -> None:
    job = await half_way(hanging)
    killed = worker(hanging_server)
    os.kill(killed.pid, signal.SIGKILL)
    over = await job_in(hanging, job["id"], "succeeded")
    assert worker(hanging_server).pid != killed.pid
    told = await events(hanging, job)
    [restart] = [event for event in told if event["event_type"] == "sft.job_restarted"]
    assert (restart["level"], restart["data"]) == ("warn", {"step": 5})
    assert await steps(hanging, job) == list(range(1, 11))
    assert sum(event["event_type"] == "workflow.completed" for event in told) == 1
    assert len(await ledger_of(hanging_server, hanging, "training")) == 1
    body = await chat(hanging, "Question 7", model=over["fine_tuned_model"])
    assert body["choices"][0]["message"]["content"] == "Answer 7"


async def steps(client: AsyncClient, job: dict[str, Any]) -> list[int]:
    return [event["data"]["step"] for event in await events(client, job) if event["event_type"] == "sft.progress"]


async def test_a_checkpoint_can_be_chatted_with_while_the_job_runs(hanging: AsyncClient) -> None:
    job = await half_way(hanging)
    [point] = ok(await hanging.get(f"{JOBS}/{job['id']}/checkpoints"))["data"]
    body = await chat(hanging, "Question 4", model=point["fine_tuned_model_checkpoint"])
    assert body["choices"][0]["message"]["content"] == "Answer 4"
    unfinished = f"ft:{MODEL}:{job['id']}"
    refused(await hanging.post(CHAT, json=chat_body(model=unfinished)), 404, param="model", code="model_not_found")
    ok(await hanging.post(f"{JOBS}/{job['id']}/cancel"))


async def test_the_checkpoints_of_a_cancelled_job_stay_and_can_be_chatted_with(
    hanging_server: Server, hanging: AsyncClient
) -> None:
    job = await half_way(hanging)
    ok(await hanging.post(f"{JOBS}/{job['id']}/cancel"))
    await eventually(lambda: not recipes(hanging_server))
    points = ok(await hanging.get(f"{JOBS}/{job['id']}/checkpoints"))["data"]
    assert points
    for point in points:
        body = await chat(hanging, "Question 4", model=point["fine_tuned_model_checkpoint"])
        assert body["choices"][0]["message"]["content"] == "Answer 4"


async def test_a_file_stays_while_a_job_needs_it(hanging: AsyncClient) -> None:
    training, validation = [(await upload(hanging))["id"] for _ in range(2)]
    job = await create_job(hanging, training_file=training, validation_file=validation)
    for file_id in (training, validation):
        refused(await hanging.delete(f"/v1/files/{file_id}"), 400, param="file_id")
        assert (await hanging.get(f"/v1/files/{file_id}/content")).status_code == 200
    ok(await hanging.post(f"{JOBS}/{job['id']}/cancel"))
    for file_id in (training, validation):
        assert ok(await hanging.delete(f"/v1/files/{file_id}"))["deleted"] is True
        refused(await hanging.get(f"/v1/files/{file_id}/content"), 404, param="file_id", code="file_not_found")
