"""What holds on every route: prefixes, the one error body, the key, ids."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from app.main import create_app
from app.orgs.keys import CurrentKey
from app.orgs.roles import Role
from app.settings import Settings
from tests.asking import CHAT, JOBS, MODEL, chat_body, create_job, ok, refused
from tests.servers import Server

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
SURROGATE = b'{"model": "\\ud800"}'


@pytest.fixture
async def stranger(simulated: Server) -> AsyncIterator[AsyncClient]:
    """A client without a key."""
    async with AsyncClient(base_url=simulated.url) as client:
        yield client


@pytest.mark.parametrize("prefix", ["/api/v1", "/api", "/v1"])
async def test_every_route_lives_at_three_prefixes(client: AsyncClient, prefix: str) -> None:
    for path in ("/files", "/fine_tuning/jobs", "/models", "/balance/current", "/balance/usage"):
        ok(await client.get(prefix + path))
    ok(await client.post(f"{prefix}/chat/completions", json=chat_body()))
    ok(await client.post(f"{prefix}/responses", json={"model": MODEL, "input": "Hi"}))
    ok(await client.post(f"{prefix}/warmup/{MODEL}"))


async def test_chat_has_one_more_address(client: AsyncClient) -> None:
    ok(await client.post("/api/inference/v1/chat/completions", json=chat_body()))


@pytest.mark.parametrize("path", ["/health", "/api/health"])
async def test_health_needs_no_key(stranger: AsyncClient, path: str) -> None:
    assert ok(await stranger.get(path)) == {"status": "ok"}


async def test_only_the_documented_prefix_is_on_the_openapi_page(stranger: AsyncClient) -> None:
    page = ok(await stranger.get("/openapi.json"))
    assert {path for path in page["paths"] if not path.startswith("/api/v1/")} == {"/health"}
    chat = page["paths"]["/api/v1/chat/completions"]["post"]
    assert {"200", "400", "401", "402", "404", "413", "429", "503"} <= set(chat["responses"])
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}


# the key

BAD_KEYS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "empty": [("Authorization", "")],
    "another scheme": [("Authorization", "Basic dXNlcjpwYXNz")],
    "no key": [("Authorization", "Bearer")],
    "unknown": [("Authorization", "Bearer sk-loam-nobody")],
    "a quote": [("Authorization", "Bearer ' OR '1'='1")],
    "very long": [("Authorization", "Bearer " + "x" * 5000)],
    "twice": [("Authorization", "Bearer a"), ("Authorization", "Bearer b")],
    "in another header": [("X-API-Key", "sk-loam-nobody")],
}


@pytest.mark.parametrize("headers", BAD_KEYS.values(), ids=BAD_KEYS.keys())
async def test_without_a_valid_key_there_is_one_answer(stranger: AsyncClient, headers: list[tuple[str, str]]) -> None:
    missing = await stranger.get("/v1/models")
    response = await stranger.get("/v1/models", headers=headers)
    refused(response, 401, code="invalid_api_key")
    assert response.content == missing.content
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/nowhere", "/", "/v1/files/", "/metrics", "/v1/load_lora_adapter", "//health"])
async def test_nobody_learns_without_a_key_which_routes_there_are(stranger: AsyncClient, path: str) -> None:
    refused(await stranger.get(path), 401, code="invalid_api_key")


@pytest.mark.parametrize("path", ["/v1/files", CHAT, JOBS])
async def test_the_key_is_asked_before_the_body_is_there(simulated: Server, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", simulated.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode())
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()


async def test_what_a_client_says_of_itself_changes_nothing(simulated: Server, client: AsyncClient) -> None:
    other = simulated.new_org()
    claims = {"X-Org-ID": other.id, "X-User-ID": "root", "OpenAI-Organization": other.id, "Host": "evil.example"}
    mine = ok(await client.get("/v1/balance/current"))["organization_id"]
    claimed = ok(await client.get("/v1/balance/current", headers={k: claims[k] for k in claims if k != "Host"}))
    assert claimed["organization_id"] == mine != other.id


# errors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nowhere", 404),
        ("GET", "/v1/files/", 404),
        ("GET", "/api/rl/jobs", 404),
        ("POST", "/v1/load_lora_adapter", 404),
        ("PUT", "/v1/files", 405),
        ("DELETE", "/v1/chat/completions", 405),
        ("OPTIONS", "/v1/files", 405),
        ("PATCH", f"{JOBS}/ftjob-1", 405),
    ],
)
async def test_what_is_not_there_is_told_in_the_one_error_body(
    client: AsyncClient, method: str, path: str, status: int
) -> None:
    refused(await client.request(method, path), status)


@pytest.mark.parametrize("path", ["/v1/files", JOBS, f"{JOBS}/{{job}}/events", f"{JOBS}/{{job}}/checkpoints"])
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=10001", "limit"),
        ("limit=many", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("order=sideways", "order"),
        ("after=nobody", "after"),
        ("after=%00", "after"),
        ("after=' OR 1=1 --", "after"),
    ],
)
async def test_a_list_refuses_a_wrong_page_by_name(client: AsyncClient, path: str, query: str, param: str) -> None:
    job = (await create_job(client))["id"] if "{job}" in path else ""
    refused(await client.get(path.format(job=job), params=query), 400, param=param)
    if job:
        ok(await client.post(f"{JOBS}/{job}/cancel"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"model": "\xff"}',
        b"9" * 5000,
        b'{"seed": NaN}',
        b"[" * 100_000,
        SURROGATE,
    ],
    ids=["empty", "cut", "list", "null", "bytes", "number", "nan", "deep", "surrogate"],
)
async def test_nonsense_is_a_400_and_not_a_bug(client: AsyncClient, body: bytes) -> None:
    for path in (JOBS, CHAT, "/v1/responses"):
        response = await client.post(path, content=body, headers=JSON)
        assert response.status_code == 400, (path, response.text)
        refused(response, 400, param=response.json()["error"]["param"], code=response.json()["error"]["code"])


async def test_an_error_never_echoes_what_was_sent(client: AsyncClient) -> None:
    secret = "correct horse battery staple " * 10_000
    for path, body in (
        (CHAT, {"model": secret, "messages": secret}),
        (JOBS, {"model": secret, "training_file": secret}),
        ("/v1/responses", {"model": secret, "input": 5}),
    ):
        response = await client.post(path, json=body)
        assert 400 <= response.status_code < 500
        assert len(response.content) < 5000


async def test_unknown_fields_are_ignored(client: AsyncClient) -> None:
    unknown: dict[str, Any] = {
        "thinking_budget": 5,
        "stop_after_tool_calls": 1,
        "extra_headers": {},
        "extra_body": {},
        "made_up": [{}],
    }
    ok(await client.post(CHAT, json=chat_body(**unknown)))
    ok(await client.post("/v1/responses", json={"model": MODEL, "input": "Hi", **unknown}))
    job = await create_job(client, **unknown)
    ok(await client.post(f"{JOBS}/{job['id']}/cancel"))


@pytest.mark.parametrize("body", [None, b"", b"{}"])
async def test_a_post_that_needs_no_body_takes_none_or_an_empty_one(client: AsyncClient, body: bytes | None) -> None:
    job = (await create_job(client))["id"]
    for action in ("pause", "resume", "cancel"):
        ok(await client.post(f"{JOBS}/{job}/{action}", content=body, headers=JSON))
    ok(await client.post(f"/v1/warmup/{MODEL}", content=body, headers=JSON))


async def test_a_bug_of_ours_shows_nothing_but_a_request_id(tmp_path: Any) -> None:
    app = create_app(Settings(data_dir=tmp_path, simulate=True))
    app.state.key_ring = AnyKey()

    @app.get("/v1/broken")
    async def broken() -> None:
        raise RuntimeError(f"secret {tmp_path}")

    async with client_of(app) as client:
        response = await client.get("/v1/broken", headers={"Authorization": "Bearer x"})
    body = refused(response, 500)
    assert body["error"]["type"] == "server_error"
    assert "secret" not in response.text
    assert response.headers["content-type"] == "application/json"


class AnyKey:
    async def authenticate(self, key: str) -> CurrentKey:
        return CurrentKey("org_1", "key_1", Role.MEMBER)


def client_of(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://loam.test")


# ids


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "Qwen%2FQwen3-0.6B", "qwen/QWEN3-0.6b", "Qwen%2fQwen3%2D0.6B"])
async def test_a_model_id_in_a_path_may_be_raw_or_encoded_and_in_any_case(client: AsyncClient, name: str) -> None:
    assert ok(await client.get(f"/v1/models/{name}"))["id"] == "Qwen/Qwen3-0.6B"
    assert ok(await client.get(f"/api/warmup/status/{name}"))["status"] in ("cold", "warming", "warmed")


@pytest.mark.parametrize("name", ["..%2F..%2Fetc%2Fpasswd", "/etc/passwd", "%00", "nobody/nothing", "ft:", "ft:x:y:z"])
async def test_a_model_id_is_looked_up_and_never_a_path(client: AsyncClient, name: str) -> None:
    for method, path in (("GET", "models"), ("DELETE", "models"), ("POST", "warmup"), ("GET", "warmup/status")):
        response = await client.request(method, f"/v1/{path}/{name}")
        refused(response, 404, param="model", code="model_not_found")


async def test_a_base_model_cannot_be_deleted(client: AsyncClient) -> None:
    refused(await client.delete(f"/v1/models/{MODEL}"), 404, param="model", code="model_not_found")


async def test_models_list_what_can_be_asked_and_on_what(client: AsyncClient) -> None:
    body = ok(await client.get("/v1/models"))
    assert MODEL in body["available_models"]
    assert {model["id"] for model in body["data"]} == set(body["available_models"])
    assert {"type", "memory_gib", "count", "free", "cents_per_hour"} == set(body["gpus"][0])
    assert {gpu["type"] for gpu in body["gpus"]} >= {"A10G", "A100", "L40S", "H100", "H200", "B200", "CPU"}
    assert body["organization_id"] == body["customer_id"]
    assert body["fine_tuned_models"] == []
