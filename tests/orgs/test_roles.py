"""Roles: every route of the application against every role, and which models a key may use."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import update
from starlette.routing import Route, WebSocketRoute
from websockets.exceptions import InvalidStatus

from app.main import create_app
from app.orgs.auth import OPEN_PATHS, RequireRole
from app.orgs.keys import CurrentKey
from app.orgs.roles import Role
from app.settings import Settings
from app.store.session import Store
from app.store.tables import ApiKey, Org
from tests.asking import CHAT, JOBS, Json, chat, chat_body, ok, refused
from tests.eventually import eventually
from tests.inference.sockets import connected, turn
from tests.rows import make_key
from tests.servers import Server, TestOrg

pytestmark = pytest.mark.anyio

ALL = "server admin member inference read"
ASKERS = "server admin member inference"
READERS = "server admin member read"
MEMBERS = "server admin member"
# What a path begins with, the longest that it does: who may look, and who may do the rest.
EXPECTED = {
    "/chat": (ALL, ASKERS),
    "/responses": (ALL, ASKERS),
    "/warmup": (ALL, ASKERS),
    "/models": (ALL, MEMBERS),
    "/files": (READERS, MEMBERS),
    "/fine_tuning": (READERS, MEMBERS),
    "/models/{model_id:path}/jobs": (READERS, MEMBERS),
    "/learning": (READERS, MEMBERS),
    "/learning/models": (ALL, MEMBERS),
    "/sft": (READERS, MEMBERS),
    "/balance": (READERS, MEMBERS),
    "/pricing": (READERS, MEMBERS),
    "/usage": (READERS, MEMBERS),
    "/organization": ("server admin", "server admin"),
    "/admin": ("server", "server"),
}


@dataclass
class AnyKey:
    """A key ring on which every key is this one."""

    key: CurrentKey

    async def authenticate(self, key: str) -> CurrentKey:
        return self.key


def app_for(path: Path, key: CurrentKey) -> FastAPI:
    app = create_app(Settings(data_dir=path, simulate=True))
    app.state.key_ring = AnyKey(key)
    return app


def client_of(app: FastAPI) -> AsyncClient:
    transport = ASGITransport(app, raise_app_exceptions=False)
    return AsyncClient(transport=transport, base_url="http://loam.test", headers={"Authorization": "Bearer x"})


def guarded(app: FastAPI) -> list[tuple[str, Route]]:
    routes = [route for route in app.routes if isinstance(route, Route) and route.path not in OPEN_PATHS]
    return [
        (method, route)
        for route in routes
        for method in (route.methods or ())
        if not route.path.startswith(("/docs", "/redoc"))
    ]


def expected(method: str, path: str) -> str:
    bare = re.sub(r"^(/api/inference/v1|/api/v1|/api|/v1)", "", path)
    longest = max((start for start in EXPECTED if bare.startswith(start)), key=len)
    return EXPECTED[longest][0 if method in ("GET", "HEAD") else 1]


@pytest.mark.parametrize("role", Role)
async def test_every_route_lets_in_the_roles_it_is_for_and_no_other(tmp_path: Path, role: Role) -> None:
    app = app_for(tmp_path, CurrentKey("org_1", "key_1", role))
    async with client_of(app) as client:
        for method, route in guarded(app):
            assert isinstance(route.app, RequireRole)
            is_let_in = role in expected(method, route.path).split()
            assert (role in route.app.access.roles(method)) == is_let_in, (method, route.path)
            if not is_let_in:
                response = await client.request(method, re.sub(r"\{[^}]+\}", "x", route.path))
                body = refused(response, 403, code="insufficient_role")
                assert f"role '{role}'" in body["detail"]
                assert "'admin'" in body["detail"] or "'server'" in body["detail"]


def test_no_route_is_without_a_rule(tmp_path: Path) -> None:
    app = app_for(tmp_path, CurrentKey("org_1", "key_1", Role.READ))
    routes: list[Route | WebSocketRoute] = [route for route in app.routes if isinstance(route, WebSocketRoute)]
    assert routes
    routes += [route for _, route in guarded(app)]
    assert [route.path for route in routes if not isinstance(route.app, RequireRole)] == []


@pytest.mark.parametrize(
    ("models", "asked", "may"),
    [
        (None, "a/b", True),
        (["A/b"], "a/B", True),
        (["a/b"], "a/c", False),
        ([], "a/b", False),
        (["a/b"], "ft:a/b:ftjob-1", False),
        (["ft:a/b:ftjob-1"], "ft:a/b:ftjob-1:ckpt-step-10", True),
    ],
)
def test_an_allow_list_names_models_in_any_case(models: list[str] | None, asked: str, may: bool) -> None:
    allowed = None if models is None else frozenset(name.lower() for name in models)
    assert CurrentKey("org_1", "key_1", Role.MEMBER, allowed).may_use(asked) == may


async def change(simulated: Server, org: TestOrg, **values: Any) -> None:
    """The organisation's keys, in the store."""
    store = Store(Settings(data_dir=simulated.data_dir).store_url)
    async with store.begin() as session:
        await session.execute(update(ApiKey).where(ApiKey.org_id == org.id).values(**values))
    await store.close()


async def another_key(simulated: Server, org: TestOrg, **values: Any) -> dict[str, str]:
    """The headers of a further key of the organisation."""
    store = Store(Settings(data_dir=simulated.data_dir).store_url)
    async with store.begin() as session:
        key = await make_key(session, await session.get_one(Org, org.id), **values)
    await store.close()
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("values", "code", "param"),
    [({"role": "read"}, "insufficient_role", None), ({"models": ["other"]}, "model_not_found", "model")],
)
async def test_the_short_way_of_a_chat_lets_in_no_more_than_the_long_one(
    simulated: Server, values: dict[str, Any], code: str, param: str | None
) -> None:
    org = simulated.new_org()
    limited = await another_key(simulated, org, **values)
    async with AsyncClient(base_url=simulated.url, timeout=30) as client:
        for _ in range(3):
            assert (await client.post(CHAT, json=chat_body(), headers=org.headers)).status_code == 200
            assert (await client.get("/v1/models", headers=limited)).status_code == 200  # the key is known now
            refused(await client.post(CHAT, json=chat_body(), headers=limited), 403, code=code, param=param)


async def test_a_key_that_only_reads_opens_no_socket(simulated: Server) -> None:
    org = simulated.new_org()
    with pytest.raises(InvalidStatus) as error:
        async with connected(simulated.url, await another_key(simulated, org, role="read")):
            pass
    assert error.value.response.status_code == 403


async def test_a_key_that_only_reads_any_more_takes_no_further_turn_on_its_socket(simulated: Server) -> None:
    org = simulated.new_org()
    async with connected(simulated.url, org.headers) as socket:
        assert (await turn(socket))["status"] == "completed"
        await change(simulated, org, role="read")

        async def is_refused() -> bool:
            return bool((await turn(socket)).get("status") == 403)

        await eventually(is_refused)


async def test_a_key_with_a_list_sees_and_uses_the_models_on_it_and_no_other(simulated: Server) -> None:
    org = simulated.new_org()
    await change(simulated, org, models=["LOAM/demo"])
    other = "Qwen/Qwen3-0.6B"
    asked: list[tuple[str, str, Json | None]] = [
        ("POST", CHAT, chat_body() | {"model": other}),
        ("POST", "/v1/responses", {"model": other, "input": "Hi"}),
        ("POST", "/v1/responses/compact", {"model": other, "input": "Hi"}),
        ("POST", "/v1/responses/input_tokens", {"model": other, "input": "Hi"}),
        ("POST", JOBS, {"model": other, "training_file": "file-x"}),
        ("POST", "/v1/fine_tuning/estimate", {"model": other, "training_file": "file-x"}),
        ("POST", "/v1/fine_tuning/preview", {"model": other, "training_file": "file-x"}),
        ("POST", "/api/learning/jobs", {"model": other, "training_file_id": "file-x", "training_type": "sft_offline"}),
        ("POST", "/api/sft/jobs", {"model": other, "training_file": "file-x"}),
        ("GET", f"/api/learning/models/{other}", None),
        ("GET", f"/api/models/{other}/jobs", None),
        ("POST", f"/v1/warmup/{other}", None),
        ("GET", f"/v1/warmup/status/{other}", None),
        ("GET", f"/v1/models/{other}", None),
        ("DELETE", f"/v1/models/{other}", None),
    ]
    async with AsyncClient(base_url=simulated.url, headers=org.headers, timeout=30) as client:
        await chat(client)
        for method, path, body in asked * 2:
            response = await client.request(method, path, json=body)
            assert "loam/demo" in refused(response, 403, param="model", code="model_not_found")["detail"]
        assert ok(await client.get("/v1/models"))["available_models"] == ["loam/demo"]
