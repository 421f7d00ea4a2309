"""Taking a trained adapter home, from a simulated server."""

from io import BytesIO
from zipfile import ZipFile

import orjson
import pytest
from httpx import AsyncClient, Response

from tests.asking import JOBS, MODEL, create_job, job_in, ok, refused, trained
from tests.eventually import eventually
from tests.orgs.test_roles import another_key
from tests.servers import Server

pytestmark = pytest.mark.anyio

PEFT_FOLDER = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def unzipped(response: Response) -> dict[str, bytes]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/zip"
    with ZipFile(BytesIO(response.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


async def test_the_adapter_of_a_finished_job_names_a_base_that_means_something_elsewhere(quick: AsyncClient) -> None:
    job = await trained(quick)
    response = await quick.get(f"{JOBS}/{job['id']}/adapter")
    files = unzipped(response)
    assert set(files) >= PEFT_FOLDER
    assert not [name for name in files if "/" in name]
    assert orjson.loads(files["adapter_config.json"])["base_model_name_or_path"] == MODEL
    assert response.headers["content-disposition"] == f'attachment; filename="{job["id"]}.zip"'


async def test_a_checkpoint_is_had_by_its_id_and_by_its_step(quick: AsyncClient) -> None:
    url = f"{JOBS}/{(await trained(quick))['id']}"
    checkpoint = ok(await quick.get(f"{url}/checkpoints"))["data"][-1]
    by_id = await quick.get(f"{url}/adapter", params={"checkpoint": checkpoint["id"]})
    by_step = await quick.get(f"{url}/adapter", params={"checkpoint": checkpoint["step_number"]})
    assert unzipped(by_id) == unzipped(by_step)
    assert f"-step-{checkpoint['step_number']}.zip" in by_id.headers["content-disposition"]
    for unknown in ("4", "ftckpt-none", "", "9" * 20, "../adapter"):
        missing = await quick.get(f"{url}/adapter", params={"checkpoint": unknown})
        refused(missing, 404, param="checkpoint", code="adapter_not_found")


async def test_a_job_that_has_not_succeeded_has_checkpoints_only(hanging: AsyncClient) -> None:
    job = await create_job(hanging)
    url = f"{JOBS}/{job['id']}"

    async def checkpoints() -> bool:
        return bool(ok(await hanging.get(f"{url}/checkpoints"))["data"])

    await eventually(checkpoints)
    refused(await hanging.get(f"{url}/adapter"), 400)
    ok(await hanging.post(f"{url}/cancel"))
    await job_in(hanging, job["id"], "cancelled")
    refused(await hanging.get(f"{url}/adapter"), 400)
    assert set(unzipped(await hanging.get(f"{url}/adapter", params={"checkpoint": "5"}))) >= PEFT_FOLDER


async def test_a_key_takes_home_no_model_that_is_not_on_its_list(quick_server: Server) -> None:
    org = quick_server.new_org()
    async with AsyncClient(base_url=quick_server.url, headers=org.headers, timeout=30) as client:
        job = await trained(client)
        url = f"{JOBS}/{job['id']}/adapter"
        without = await another_key(quick_server, org, models=[MODEL])
        for params in ({}, {"checkpoint": "5"}, {"checkpoint": "ftckpt-none"}):
            refused(await client.get(url, params=params, headers=without), 403, param="model", code="model_not_found")
        with_it = await another_key(quick_server, org, models=[job["fine_tuned_model"]])
        assert set(unzipped(await client.get(url, headers=with_it))) >= PEFT_FOLDER


async def test_the_adapter_of_a_deleted_model_is_gone(quick: AsyncClient) -> None:
    job = await trained(quick)
    ok(await quick.delete(f"/v1/models/{job['fine_tuned_model']}"))
    for params in ({}, {"checkpoint": "5"}):
        refused(await quick.get(f"{JOBS}/{job['id']}/adapter", params=params), 404, code="adapter_not_found")
