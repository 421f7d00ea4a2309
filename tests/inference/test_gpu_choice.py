"""Several GPU types on one host: who is asked for is who answers, on every route."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from httpx import AsyncClient, Response

from tests.asking import CHAT, chat_body, ok, refused
from tests.engines.running import processes_of
from tests.eventually import eventually
from tests.servers import Server, running_server

pytestmark = pytest.mark.anyio

MODEL = "Qwen/Qwen3-0.6B"
DEVICES = '["A100:2", "L40S:1", "H100:4"]'
RESPONSES, WARMUP = "/v1/responses", f"/api/warmup/{MODEL}"

WAYS: dict[str, dict[str, Any]] = {
    "body": {"json": {"gpu_preference": "h100"}},
    "header": {"headers": {"X-GPU-Preference": "h100"}},
    "query": {"params": {"gpu": "H100"}},
    "literal header": {"json": {"extra_headers": {"x-gpu-preference": "H100"}}},
    "counted": {"json": {"gpu_preference": "h100:1"}},
    "body before header": {"json": {"gpu_preference": "H100"}, "headers": {"X-GPU-Preference": "L40S"}},
    "header before query": {"headers": {"X-GPU-Preference": "H100"}, "params": {"gpu": "L40S"}},
    "query before literal header": {
        "json": {"extra_headers": {"X-GPU-Preference": "L40S"}},
        "params": {"gpu": "H100"},
    },
}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: chat_body(model=MODEL),
    RESPONSES: {"model": MODEL, "input": "Hello"},
    WARMUP: {},
}


def server_of(folder: pytest.TempPathFactory, **environment: str) -> Iterator[Server]:
    environment |= {"LOAM_DEVICES": DEVICES, "LOAM_SETTLE_SECONDS": "1"}
    with running_server(folder.mktemp("gpus"), "--simulate", command="serve", **environment) as server:
        yield server


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves on the GPU that was asked for, or not at all."""
    yield from server_of(tmp_path_factory, LOAM_GPU_FALLBACK="false")


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves on another GPU where the wanted one is not here."""
    yield from server_of(tmp_path_factory, LOAM_GPU_FALLBACK="true")


@pytest.fixture
async def client(exact: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=exact.url, headers=exact.new_org().headers, timeout=30) as client:
        yield client


@pytest.fixture
async def lenient_client(lenient: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=lenient.url, headers=lenient.new_org().headers, timeout=30) as client:
        yield client


async def ask(client: AsyncClient, route: str, **way: Any) -> Response:
    return await client.post(route, **{**way, "json": {**BODIES[route], **way.get("json", {})}})


async def gpu_of(client: AsyncClient, route: str = CHAT, **way: Any) -> str:
    """Where it was answered, told alike in the header and in the body."""
    response = await ask(client, route, **way)
    body = ok(response)
    if route == WARMUP:
        return str(body["gpu"])
    assert response.headers["x-gpu-type"] == body["selected_gpu"]
    return str(body["selected_gpu"])


def tokens_by_engine(server: Server) -> dict[str, float]:
    """What each engine process has generated, by its socket."""
    counts = {}
    for socket in (server.data_dir / "engines").glob("*.sock"):
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine") as engine:
            [line] = [x for x in engine.get("/metrics").text.splitlines() if x.startswith("vllm:generation_tokens")]
        counts[socket.name] = float(line.split()[-1])
    return counts


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("route", BODIES)
async def test_every_route_takes_every_way_of_asking(client: AsyncClient, route: str, way: dict[str, Any]) -> None:
    assert await gpu_of(client, route, **way) == "H100"


@pytest.mark.parametrize("route", [CHAT, RESPONSES])
async def test_a_stream_tells_its_gpu_in_the_header(client: AsyncClient, route: str) -> None:
    response = await ask(client, route, json={"stream": True, "gpu_preference": "l40s"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-gpu-type"] == "L40S"


async def test_each_request_reaches_the_engine_of_its_gpu(exact: Server, client: AsyncClient) -> None:
    for wanted in ("A100", "L40S", "H100", "H100:2"):
        assert await gpu_of(client, json={"gpu_preference": wanted}) == wanted
    before = tokens_by_engine(exact)
    grown = []
    for wanted in ("A100", "L40S", "H100", "H100:2", "A100"):
        await gpu_of(client, json={"gpu_preference": wanted})
        after = tokens_by_engine(exact)
        grown.append({socket for socket in after if after[socket] > before[socket]})
        before = after
    assert all(len(engines) == 1 for engines in grown)
    assert grown[0] == grown[4]
    assert len(set.union(*grown)) == 4
    assert len({p.pid for p in processes_of(exact.data_dir) if "app.engines.simulated" in " ".join(p.cmdline())}) == 4


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("wanted", ["T4", "A100:0", "A100:x", "A100:", "H100:3", "CPU:-1", "A100,H100", "x" * 3000])
async def test_what_is_no_gpu_of_the_model_is_refused_with_those_that_are(
    client: AsyncClient, route: str, wanted: str
) -> None:
    response = await ask(client, route, json={"gpu_preference": wanted})
    body = refused(response, 400, param="gpu_preference", code="gpu_not_supported")
    assert body["troubleshooting"]["supported_gpus"] == ["A10G", "L40S", "A100", "H100", "H200", "B200", "CPU"]
    assert body["troubleshooting"]["available_gpus"] == ["A100:2", "L40S", "H100:4"]
    assert len(body["detail"]) < 300


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("wanted", ["H200", "L40S:2", "H100:8"])
async def test_a_gpu_that_is_not_here_is_refused_with_what_is(client: AsyncClient, route: str, wanted: str) -> None:
    response = await ask(client, route, params={"gpu": wanted})
    body = refused(response, 400, param="gpu_preference", code="gpu_not_supported")
    assert wanted in body["detail"]
    assert "2 × A100" in body["detail"]


@pytest.mark.parametrize("route", BODIES)
async def test_with_fallback_another_fit_one_serves_and_is_told(lenient_client: AsyncClient, route: str) -> None:
    assert await gpu_of(lenient_client, route, json={"gpu_preference": "H200"}) == "L40S"
    assert await gpu_of(lenient_client, route, json={"gpu_preference": "A100:4"}) == "L40S"
    refused(
        await ask(lenient_client, route, json={"gpu_preference": "T4"}),
        400,
        param="gpu_preference",
        code="gpu_not_supported",
    )


async def test_the_last_gpu_of_a_type_goes_to_who_asks_when_its_holder_idles(
    exact: Server, client: AsyncClient
) -> None:
    one, other = MODEL, "Qwen/Qwen3-1.7B"
    for model in (one, other, one):
        response = await client.post(CHAT, json=chat_body(model=model, gpu_preference="L40S"))
        assert ok(response)["selected_gpu"] == "L40S"
        status = ok(await client.get(f"/api/warmup/status/{model}", params={"gpu": "L40S"}))
        assert status["status"] == "warmed"
    assert ok(await client.get(f"/api/warmup/status/{other}", params={"gpu": "L40S"}))["status"] == "cold"


async def test_a_busy_engine_keeps_the_last_gpu_until_it_has_answered(client: AsyncClient) -> None:
    long = chat_body("[simulate: tokens=60] [simulate: pace=40]", model=MODEL, gpu_preference="L40S", stream=True)
    async with client.stream("POST", CHAT, json=long) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines)
        response = await client.post(CHAT, json=chat_body(model="Qwen/Qwen3-1.7B", gpu_preference="L40S"))
        assert [line async for line in lines if line][-1] == "data: [DONE]"
    assert ok(response)["selected_gpu"] == "L40S"


async def test_a_warm_up_takes_no_body_an_empty_one_and_no_other_than_an_object(client: AsyncClient) -> None:
    json = {"content-type": "application/json"}
    for body in (b"", b"{}", b"null"):
        ok(await client.post(WARMUP, content=body, headers=json))
    for body in (b"{", b"[]"):
        refused(await client.post(WARMUP, content=body, headers=json), 400)


async def test_the_state_of_a_warm_up_is_asked_of_the_gpu_in_the_header_before_the_query(client: AsyncClient) -> None:
    await ask(client, WARMUP, json={"gpu_preference": "A100"})

    async def is_warm() -> bool:
        return bool(ok(await client.get(f"/api/warmup/status/{MODEL}", params={"gpu": "A100"}))["status"] == "warmed")

    await eventually(is_warm)
    asked = await client.get(
        f"/api/warmup/status/{MODEL}", headers={"X-GPU-Preference": "a100:2"}, params={"gpu": "A100"}
    )
    assert ok(asked)["gpu"] == "A100:2"


async def test_a_job_takes_an_empty_preference_for_none(client: AsyncClient) -> None:
    wrong = {"model": MODEL, "training_file": "file-none", "gpu_preference": "T4"}
    refused(
        await client.post("/v1/fine_tuning/jobs", json=wrong), 400, param="gpu_preference", code="gpu_not_supported"
    )
    response = await client.post("/v1/fine_tuning/jobs", json={**wrong, "gpu_preference": ""})
    assert response.json()["error"]["param"] != "gpu_preference"
