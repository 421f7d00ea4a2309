"""Warming a model up ahead of need."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import CHAT, chat_body, leave_funds, ledger_of, ok, refused, spend_everything
from tests.eventually import eventually
from tests.servers import Server, running_server

pytestmark = pytest.mark.anyio

MODEL = "Qwen/Qwen3-14B"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its engines cannot start."""
    fault = {"LOAM_SIMULATE_FAULTS": '["start_fails"]'}
    with running_server(tmp_path_factory.mktemp("broken"), "--simulate", command="serve", **fault) as server:
        yield server


@pytest.fixture
async def broken_client(broken: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=broken.url, headers=broken.new_org().headers, timeout=30) as client:
        yield client


async def status_of(client: AsyncClient, model: str = MODEL, **params: str) -> str:
    word: str = ok(await client.get(f"/api/warmup/status/{model}", params=params))["status"]
    return word


async def test_a_cold_model_becomes_warm_and_its_gpu_seconds_are_charged_once(
    simulated: Server, client: AsyncClient
) -> None:
    assert await status_of(client, gpu="A100") == "cold"
    begun = ok(await client.post(f"/api/warmup/{MODEL}", params={"gpu": "a100"}))
    assert (begun["status"], begun["model"], begun["gpu"]) == ("warming", MODEL, "A100")
    again = ok(await client.post(f"/api/warmup/{MODEL}", headers={"X-GPU-Preference": "A100"}))
    assert again["status"] in ("already_warming", "already_warmed")

    async def is_warm() -> bool:
        return await status_of(client, gpu="A100") == "warmed"

    await eventually(is_warm)
    assert await status_of(client) == "warmed"
    assert await status_of(client, gpu="H100") == "cold"
    [charge] = await eventually(lambda: ledger_of(simulated, client, "warmup"))
    assert charge.gpu_seconds > 0
    assert charge.key_id
    assert charge.amount_micros == pytest.approx(-charge.gpu_seconds * 2.5e6 / 3600, abs=1)
    assert ok(await client.post(f"/api/warmup/{MODEL}", params={"gpu": "A100"}))["status"] == "already_warmed"
    assert len(await ledger_of(simulated, client, "warmup")) == 1


async def test_that_one_could_not_pay_for_it_is_not_told_to_others(simulated: Server, client: AsyncClient) -> None:
    model, poor = "Qwen/Qwen3-32B", simulated.new_org()
    await leave_funds(simulated, poor.id, 1)
    async with AsyncClient(base_url=simulated.url, headers=poor.headers, timeout=30) as other:
        ok(await other.post(f"/api/warmup/{model}"))

        async def failure() -> str | None:
            error: str | None = ok(await other.get(f"/api/warmup/status/{model}"))["error"]
            return error

        assert "balance" in await eventually(failure)
    assert await status_of(client, model) == "cold"


async def test_a_start_tells_how_far_it_is_and_the_next_one_how_long_it_will_take(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    slow = {"LOAM_SIMULATE_START_SECONDS": "1"}
    with running_server(tmp_path_factory.mktemp("slow"), "--simulate", command="serve", **slow) as server:
        async with AsyncClient(base_url=server.url, headers=server.new_org().headers, timeout=30) as client:

            async def status() -> dict[str, Any]:
                found: dict[str, Any] = ok(await client.get(f"/api/warmup/status/{MODEL}"))
                return found

            async def loading() -> dict[str, Any] | None:
                found = await status()
                return found if found["stage"] == "loading_weights" else None

            async def warmed() -> dict[str, Any] | None:
                found = await status()
                return found if found["status"] == "warmed" else None

            cold = await status()
            assert (cold["stage"], cold["progress"], cold["estimated_seconds"]) == (None, None, None)
            assert ok(await client.post(f"/api/warmup/{MODEL}"))["estimated_seconds"] is None
            assert (await eventually(loading))["progress"] == 0.2
            warm = await eventually(warmed)
            assert (warm["stage"], warm["progress"]) == ("ready", 1)
            assert 1 <= warm["estimated_seconds"] < 10
            assert ok(await client.post(f"/api/warmup/{MODEL}"))["estimated_seconds"] == warm["estimated_seconds"]


async def test_a_gpu_that_does_not_fit_is_refused(client: AsyncClient) -> None:
    response = await client.post("/api/warmup/Qwen/Qwen3-32B", params={"gpu": "T4"})
    refused(response, 400, param="gpu_preference", code="gpu_not_supported")


async def test_a_warm_up_needs_funds(simulated: Server) -> None:
    org = simulated.new_org()
    await spend_everything(simulated, org)
    async with AsyncClient(base_url=simulated.url, headers=org.headers) as client:
        refused(await client.post(f"/api/warmup/{MODEL}"), 402, code="insufficient_quota")


async def test_a_start_that_cannot_succeed_is_told_with_the_engines_last_words(
    broken: Server, broken_client: AsyncClient
) -> None:
    ok(await broken_client.post(f"/api/warmup/{MODEL}"))

    async def has_failed() -> bool:
        return await status_of(broken_client) == "failed"

    await eventually(has_failed)
    status = ok(await broken_client.get(f"/api/warmup/status/{MODEL}"))
    assert "could not start" in status["error"]
    assert any("out of memory" in line for line in status["log"])
    response = await broken_client.post(CHAT, json=chat_body(model=MODEL))
    body = refused(response, 503, code="engine_start_failed")
    assert any("out of memory" in line for line in body["troubleshooting"]["log"])
    assert 0 < int(response.headers["retry-after"]) <= 60
    assert await ledger_of(broken, broken_client, "warmup") == []
    ok(await broken_client.get("/v1/models"))  # all else goes on


async def test_a_stream_whose_engine_cannot_start_is_an_http_error(broken_client: AsyncClient) -> None:
    response = await broken_client.post(CHAT, json=chat_body(model=MODEL, stream=True))
    refused(response, 503, code="engine_start_failed")
