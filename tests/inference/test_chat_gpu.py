"""Which GPU answers: the four ways of asking for one, and what is said when it cannot be had."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import CHAT, chat_body, ok, refused

pytestmark = pytest.mark.anyio

MODEL = "Qwen/Qwen3-0.6B"
WAYS: dict[str, dict[str, Any]] = {
    "body": {"json": chat_body(model=MODEL, gpu_preference="A100")},
    "header": {"json": chat_body(model=MODEL), "headers": {"X-GPU-Preference": "A100"}},
    "query": {"json": chat_body(model=MODEL), "params": {"gpu": "A100"}},
    "literal header": {"json": chat_body(model=MODEL, extra_headers={"X-GPU-Preference": "A100"})},
    "any case": {"json": chat_body(model=MODEL, gpu_preference="a100")},
    "counted": {"json": chat_body(model=MODEL, gpu_preference="A100:1")},
    "body before header": {
        "json": chat_body(model=MODEL, gpu_preference="A100"),
        "headers": {"X-GPU-Preference": "H100"},
    },
    "header before query": {
        "json": chat_body(model=MODEL),
        "headers": {"X-GPU-Preference": "A100"},
        "params": {"gpu": "H100"},
    },
    "query before literal header": {
        "json": chat_body(model=MODEL, extra_headers={"x-gpu-preference": "H100"}),
        "params": {"gpu": "A100"},
    },
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_a_gpu_can_be_asked_for_in_many_ways(client: AsyncClient, way: dict[str, Any]) -> None:
    response = await client.post(CHAT, **way)
    assert response.headers["x-gpu-type"] == "A100"
    assert ok(response)["selected_gpu"] == "A100"


async def test_a_stream_tells_its_gpu_in_the_header(client: AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body(model=MODEL, gpu_preference="A100", stream=True))
    assert response.headers["x-gpu-type"] == "A100"


async def test_a_model_gets_as_many_gpus_as_it_needs(client: AsyncClient) -> None:
    body = ok(await client.post(CHAT, json=chat_body(model="Qwen/Qwen3-32B", gpu_preference="h100")))
    assert body["selected_gpu"] == "H100:2"


@pytest.mark.parametrize("wanted", ["T4", "A10G", "L40S:1", "A100:x", "A100:0", "../A100", "A100:999"])
async def test_a_gpu_that_does_not_fit_is_refused_with_those_that_do(client: AsyncClient, wanted: str) -> None:
    response = await client.post(CHAT, json=chat_body(model="Qwen/Qwen3-32B", gpu_preference=wanted))
    body = refused(response, 400, param="gpu_preference", code="gpu_not_supported")
    assert "H200" in body["troubleshooting"]["supported_gpus"]


@pytest.mark.parametrize("nothing", ["", " ", None])
async def test_an_empty_preference_is_none(client: AsyncClient, nothing: str | None) -> None:
    ok(await client.post(CHAT, json=chat_body(model=MODEL, gpu_preference=nothing)))


@pytest.mark.parametrize("wrong", [5, ["A100"], {"type": "A100"}, True])
@pytest.mark.parametrize("route", [CHAT, "/v1/responses"])
async def test_a_preference_of_another_type_is_refused(client: AsyncClient, route: str, wrong: Any) -> None:
    body = {**chat_body(model=MODEL, gpu_preference=wrong), "input": "Hi"}
    if route != CHAT:
        del body["messages"]
    refused(await client.post(route, json=body), 400, param="gpu_preference")
