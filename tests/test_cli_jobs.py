"""`loam jobs` beside a running server."""

import subprocess

import pytest
from httpx import AsyncClient

from app.orgs.audit import Actor, AuditFilter
from app.settings import Settings
from app.store.session import Store
from app.store.tables import AuditEntry
from tests.asking import JOBS, create_job, job_in, ok
from tests.command import loam
from tests.servers import Server

pytestmark = pytest.mark.anyio


def jobs(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return loam({**server.env, "COLUMNS": "200"}, "jobs", *arguments)


async def test_a_job_is_listed_followed_to_its_end_and_its_model_named(simulated: Server, client: AsyncClient) -> None:
    job = await create_job(client)
    org_id = ok(await client.get("/v1/balance/current"))["organization_id"]
    listed = jobs(simulated, "list", "--org", org_id).stdout
    assert job["id"] in listed
    followed = jobs(simulated, "follow", job["id"])
    lines = [line[9:] for line in followed.stdout.splitlines()]
    assert followed.returncode == 0
    assert lines[0] == f"Created fine-tuning job: {job['id']}"
    assert lines[-2] == "The job has successfully completed"
    model = (await job_in(client, job["id"], "succeeded"))["fine_tuned_model"]
    assert followed.stdout.splitlines()[-1] == f"The model is {model}"
    assert "succeeded" in jobs(simulated, "list", "--org", org_id).stdout
    assert "CPU" in jobs(simulated, "workers").stdout


async def test_a_job_is_cancelled_once_and_that_is_written_down(simulated: Server, client: AsyncClient) -> None:
    job = await create_job(client)
    ok(await client.post(f"{JOBS}/{job['id']}/pause"))  # or it may succeed before the command has started
    assert jobs(simulated, "cancel", job["id"]).stdout == f"Cancelled {job['id']}.\n"
    await job_in(client, job["id"], "cancelled")
    again, followed = jobs(simulated, "cancel", job["id"]), jobs(simulated, "follow", job["id"])
    assert (again.returncode, followed.returncode) == (1, 1)
    assert again.stderr == "The job is cancelled; it cannot become cancelled any more.\n"
    assert followed.stderr == "The job was cancelled.\n"
    acts = await acts_on(simulated, job["id"])
    assert [(act.action, act.actor, act.address) for act in acts] == [
        ("fine_tuning.job.cancelled", Actor.at_terminal().name, "cli")
    ]
    assert (acts[0].org_id, acts[0].details) == (job["organization_id"], {"model": job["model"]})


async def acts_on(server: Server, target: str) -> list[AuditEntry]:
    store = Store(Settings(data_dir=server.data_dir).store_url)
    async with store.read() as session:
        found = list(await session.scalars(AuditFilter(target=target).rows()))
    await store.close()
    return found


@pytest.mark.parametrize("command", ["follow", "cancel"])
def test_a_job_that_is_not_there_is_a_sentence(simulated: Server, command: str) -> None:
    missing = jobs(simulated, command, "ftjob-missing")
    assert missing.returncode == 1
    assert missing.stderr == "there is no job 'ftjob-missing'; those that are there: loam jobs list\n"
