"""A full fine-tune, from the job to an engine of its own: served, continued, taken home and deleted as others are."""

from io import BytesIO
from zipfile import ZipFile

import pytest
from httpx import AsyncClient

from tests.asking import JOBS, MODEL, chat, ok, refused, trained, upload
from tests.rows import chat_rows

pytestmark = pytest.mark.anyio

PLAIN = "Qwen/Qwen3-14B"  # permits adapters alone
ESTIMATE = "/v1/fine_tuning/estimate"
[ROW] = chat_rows(1)
QUESTION, ANSWER = (message["content"] for message in ROW["messages"][-2:])


async def test_a_full_fine_tune_is_a_model_of_its_own(client: AsyncClient) -> None:
    job = await trained(client, training_type="full")
    name = job["fine_tuned_model"]
    assert job["training_type"] == "full"
    assert "lora_r" not in job["hyperparameters"]
    assert job["hyperparameters"]["learning_rate"] == pytest.approx(2e-5)
    answer = await chat(client, QUESTION, model=name)
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == (name, ANSWER)
    assert (await chat(client, QUESTION))["choices"][0]["message"]["content"] != ANSWER
    assert ok(await client.get(f"/v1/warmup/status/{name}"))["status"] == "warmed"
    listed = ok(await client.get("/v1/models"))
    assert name in listed["available_models"]

    checkpoint = ok(await client.get(f"{JOBS}/{job['id']}/checkpoints"))["data"][-1]["fine_tuned_model_checkpoint"]
    assert (await chat(client, QUESTION, model=checkpoint))["choices"][0]["message"]["content"] == ANSWER

    with ZipFile(BytesIO((await client.get(f"{JOBS}/{job['id']}/adapter")).content)) as archive:
        assert {"config.json", "model.safetensors"} <= set(archive.namelist())

    on_it = {"model": name, "training_file": job["training_file"]}
    refused(await client.post(JOBS, json=on_it), 400, param="model")
    further = await trained(client, model=name, training_type="full", training_file=job["training_file"])
    assert further["fine_tuned_model"] != name

    ok(await client.delete(f"/v1/models/{name}"))
    gone = await client.post("/v1/chat/completions", json={"model": name, "messages": ROW["messages"][:1]})
    refused(gone, 404, param="model", code="model_not_found")


async def test_what_the_catalog_does_not_permit_is_refused_with_what_it_does(client: AsyncClient) -> None:
    body = {"model": PLAIN, "training_file": (await upload(client))["id"], "training_type": "full"}
    for path in (JOBS, ESTIMATE):
        told = refused(
            await client.post(path, json=body), 400, param="training_type", code="training_type_not_permitted"
        )
        assert "training_type sft" in told["detail"]
        assert MODEL in told["detail"]


async def test_a_full_fine_tune_has_no_adapter(client: AsyncClient) -> None:
    file_id = (await upload(client))["id"]
    for name, value in {"lora_r": 8, "use_qlora": True}.items():
        numbers = {name: value, "training_type": "full"}
        body = {"model": MODEL, "training_file": file_id, "hyperparameters": numbers}
        refused(await client.post(JOBS, json=body), 400, param=f"hyperparameters.{name}")
    lora = await trained(client, training_file=file_id)
    body = {"model": lora["fine_tuned_model"], "training_file": file_id, "training_type": "full"}
    assert "sft" in refused(await client.post(JOBS, json=body), 400, param="model")["detail"]
    refused(await client.post(JOBS, json={**body, "model": MODEL, "training_type": "rl"}), 400, param="training_type")


async def test_a_full_fine_tune_takes_more_of_everything(client: AsyncClient) -> None:
    body = {"model": MODEL, "training_file": (await upload(client))["id"]}
    lora, full = [
        ok(await client.post(ESTIMATE, json={**body, "training_type": kind}))["gpus"][0] for kind in ("sft", "full")
    ]
    assert full["memory_gib"] > lora["memory_gib"]
    assert full["estimated_seconds"] >= lora["estimated_seconds"]
