"""Models, files, jobs and errors are what OpenAI's document says."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import CHAT, MODEL, chat_body, ok, trained, upload
from tests.conformance.shapes import OPENAI

pytestmark = pytest.mark.anyio

REFUSALS: dict[str, tuple[int, str, str, Any]] = {
    "a value out of range": (400, "POST", CHAT, chat_body(temperature=9)),
    "a wrong type": (400, "POST", CHAT, chat_body(stop=3)),
    "an impossible tool": (400, "POST", CHAT, chat_body(tools=[{"type": "web_search"}])),
    "not an object": (400, "POST", "/v1/responses", [1]),
    "no input": (400, "POST", "/v1/responses", {"model": MODEL}),
    "an unknown model": (404, "POST", CHAT, chat_body() | {"model": "nobody"}),
    "an unknown response": (404, "GET", "/v1/responses/resp_nobody", None),
    "an unknown route": (404, "GET", "/v1/nowhere", None),
    "a wrong method": (405, "PUT", CHAT, chat_body()),
}


@pytest.mark.parametrize(("status", "method", "path", "body"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refusal_is_an_error_of_the_documents_shape(
    client: AsyncClient, status: int, method: str, path: str, body: Any
) -> None:
    response = await client.request(method, path, json=body)
    assert response.status_code == status, response.text
    OPENAI.check("ErrorResponse", response.json())


async def test_who_has_no_key_gets_an_error_of_the_documents_shape(client: AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body(), headers={"Authorization": "Bearer nobody"})
    assert response.status_code == 401
    OPENAI.check("ErrorResponse", response.json())


async def test_models_are_of_the_documents_shape(client: AsyncClient) -> None:
    OPENAI.check("ListModelsResponse", ok(await client.get("/v1/models")))
    OPENAI.check("Model", ok(await client.get(f"/v1/models/{MODEL}")))


async def test_files_are_of_the_documents_shape(client: AsyncClient) -> None:
    OPENAI.check("ListFilesResponse", ok(await client.get("/v1/files")))
    file = await upload(client)
    OPENAI.check("OpenAIFile", file)
    OPENAI.check("ListFilesResponse", ok(await client.get("/v1/files")))
    OPENAI.check("DeleteFileResponse", ok(await client.delete(f"/v1/files/{file['id']}")))


async def test_a_fine_tune_is_of_the_documents_shape(client: AsyncClient) -> None:
    job = await trained(client)
    path = f"/v1/fine_tuning/jobs/{job['id']}"
    OPENAI.check("FineTuningJob", job)
    OPENAI.check("ListPaginatedFineTuningJobsResponse", ok(await client.get("/v1/fine_tuning/jobs")))
    OPENAI.check("ListFineTuningJobEventsResponse", ok(await client.get(f"{path}/events")))
    OPENAI.check("ListFineTuningJobCheckpointsResponse", ok(await client.get(f"{path}/checkpoints")))
    tuned = job["fine_tuned_model"]
    OPENAI.check("Model", ok(await client.get(f"/v1/models/{tuned}")))
    OPENAI.check("DeleteModelResponse", ok(await client.delete(f"/v1/models/{tuned}")))
