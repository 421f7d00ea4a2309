"""The admin API, and what an organisation's own admins may do: by the openai package where it has the calls."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from httpx import AsyncClient, Response
from openai import NotFoundError, OpenAI

from app.orgs.roles import Role
from tests.asking import CHAT, JOBS, MODEL, chat_body, jsonl, ok, refused, upload
from tests.orgs.test_roles import another_key
from tests.servers import Server

pytestmark = pytest.mark.anyio

ADMIN = "/api/v1/admin"


@pytest.fixture
async def operator(simulated: Server) -> AsyncIterator[AsyncClient]:
    """With a key of the server role."""
    headers = await another_key(simulated, simulated.new_org(), role="server")
    async with AsyncClient(base_url=simulated.url, headers=headers, timeout=30) as client:
        yield client


def unused(what: str) -> str:
    return f"{what}-{time.time_ns()}"


@dataclass(frozen=True)
class Asked:
    """A chat by a key, until it is answered so."""

    simulated: Server

    async def status(self, key: str) -> int:
        async with AsyncClient(base_url=self.simulated.url, timeout=30) as client:
            return (await client.post(CHAT, json=chat_body(), headers={"Authorization": f"Bearer {key}"})).status_code


async def test_the_life_of_an_organisation(simulated: Server, operator: AsyncClient) -> None:
    name = unused("acme")
    body = {"name": name, "requests_per_minute": 50, "monthly_budget_cents": 250, "unheard_of": 1}
    org = ok(await operator.post(f"{ADMIN}/orgs", json=body))
    assert (org["object"], org["name"], org["balance_cents"]) == ("organization", name, 10_000)
    path = f"{ADMIN}/orgs/{org['id']}"
    assert ok(await operator.get(f"{ADMIN}/orgs/{name}")) == ok(await operator.get(path)) == org
    refused(await operator.post(f"{ADMIN}/orgs", json=body), 409, param="name")
    changed = ok(await operator.post(path, json={"requests_per_minute": None, "tokens_per_minute": 7}))
    assert changed == org | {"requests_per_minute": None, "tokens_per_minute": 7}
    assert ok(await operator.get(f"{ADMIN}/orgs", params={"limit": 1}))["data"] == [changed]

    key = ok(await operator.post(f"{path}/keys", json={"name": "ci"}))["value"]
    asked = Asked(simulated)
    assert await asked.status(key) == 200
    ok(await operator.post(path, json={"tokens_per_minute": None}))
    assert ok(await operator.delete(path)) == {"id": org["id"], "object": "organization.deleted", "deleted": True}
    refused(await operator.get(path), 404, param="org")
    await within_a_second(asked, key, 401)
    acts = ok(await operator.get(f"{ADMIN}/audit", params={"org": org["id"], "order": "asc"}))["data"]
    assert [act["type"] for act in acts] == [
        *("organization.created", "organization.updated", "api_key.created"),
        *("organization.updated", "organization.deleted"),
    ]
    assert {act["actor"]["type"] for act in acts} == {"api_key"}
    assert {act["address"] for act in acts} == {"127.0.0.1"}


async def test_the_quotas_of_an_organisation_hold_from_when_they_are_set(
    simulated: Server, operator: AsyncClient
) -> None:
    org = simulated.new_org()
    path = f"{ADMIN}/orgs/{org.id}"
    async with AsyncClient(base_url=simulated.url, headers=org.headers, timeout=30) as client:
        told = ok(await operator.post(path, json={"max_stored_files": 1, "max_queued_jobs": 0}))
        assert (told["max_stored_files"], told["max_stored_bytes"], told["max_queued_jobs"]) == (1, None, 0)
        file = await upload(client)
        refused(await post_file(client), 413, param="file", code="storage_limit_reached")
        job = {"model": MODEL, "training_file": file["id"]}
        refused(await client.post(JOBS, json=job), 429, code="too_many_queued_jobs")
        ok(await operator.post(path, json={"max_stored_files": None, "max_stored_bytes": file["bytes"] + 1}))
        refused(await post_file(client), 413, param="file", code="storage_limit_reached")
        ok(await operator.post(path, json={"max_stored_bytes": None, "max_queued_jobs": None}))
        await upload(client)
        ok(await client.post(JOBS, json=job))
    [*_, last] = ok(await operator.get(f"{ADMIN}/audit", params={"org": org.id, "order": "asc"}))["data"]
    assert last["details"] == {
        "max_stored_bytes": {"from": file["bytes"] + 1, "to": None},
        "max_queued_jobs": {"from": 0, "to": None},
    }


async def post_file(client: AsyncClient) -> Response:
    return await client.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", jsonl())})


async def test_an_organisation_begins_with_the_quotas_that_it_is_given(operator: AsyncClient) -> None:
    quotas = {"max_stored_files": 5, "max_stored_bytes": 2**40, "max_queued_jobs": 2}
    org = ok(await operator.post(f"{ADMIN}/orgs", json={"name": unused("acme"), **quotas}))
    assert quotas.items() <= org.items()


@pytest.mark.parametrize("name", ["max_stored_files", "max_stored_bytes", "max_queued_jobs"])
@pytest.mark.parametrize("value", [-1, "many", 1.5, 2**63])
async def test_a_quota_that_is_no_number_is_refused(operator: AsyncClient, name: str, value: object) -> None:
    refused(await operator.post(f"{ADMIN}/orgs", json={"name": unused("acme"), name: value}), 400, param=name)


async def within_a_second(asked: Asked, key: str, status: int) -> None:
    deadline = time.monotonic() + 1
    while await asked.status(key) != status:
        assert time.monotonic() < deadline


async def test_the_life_of_a_key(simulated: Server, operator: AsyncClient) -> None:
    org = simulated.new_org()
    path = f"{ADMIN}/orgs/{org.name}/keys"
    body = {"name": "ci", "role": "inference", "models": ["loam/demo"], "expires_in_seconds": 60}
    made = ok(await operator.post(path, json=body, headers={"Idempotency-Key": unused("key")}))
    first = made.pop("value")
    assert first.startswith(made["redacted_value"].removesuffix("..."))
    assert 0 < made["expires_at"] - time.time() <= 61
    assert (made["role"], made["models"], made["status"]) == ("inference", ["loam/demo"], "active")
    assert ok(await operator.get(f"{path}/{made['id']}")) == made
    asked = Asked(simulated)
    assert await asked.status(first) == 200
    second = ok(await operator.post(f"{path}/{made['id']}/rotate"))["value"]
    await within_a_second(asked, first, 401)
    assert await asked.status(second) == 200
    changed = ok(await operator.post(f"{path}/{made['id']}", json={"role": "read", "expires_at": None, "models": None}))
    assert (changed["role"], changed["expires_at"], changed["models"], changed["name"]) == ("read", None, None, "ci")
    await within_a_second(asked, second, 403)
    ok(await operator.delete(f"{path}/{made['id']}"))
    ok(await operator.delete(f"{path}/{made['id']}"))
    await within_a_second(asked, second, 401)
    assert [key["status"] for key in ok(await operator.get(path))["data"]] == ["revoked", "active"]
    refused(await operator.post(f"{path}/{made['id']}/rotate"), 409, code="api_key_revoked")
    refused(await operator.get(f"{ADMIN}/orgs/{simulated.new_org().id}/keys/{made['id']}"), 404, param="key_id")
    told = (await operator.get(f"{ADMIN}/audit", params={"target": made["id"]})).text
    assert "api_key.rotated" in told
    assert first[12:] not in told + simulated.log
    assert second[12:] not in told + simulated.log


async def test_a_key_is_made_once_under_an_idempotency_key_and_shown_once(
    simulated: Server, operator: AsyncClient
) -> None:
    path = f"{ADMIN}/orgs/{simulated.new_org().id}/keys"
    headers = {"Idempotency-Key": unused("key")}
    made = ok(await operator.post(path, json={"name": "ci"}, headers=headers))
    again = refused(await operator.post(path, json={"name": "ci"}, headers=headers), 409, code="api_key_made_before")
    assert made["id"] in again["detail"]
    assert len(ok(await operator.get(path))["data"]) == 2


async def test_repeated_credit_is_added_once(simulated: Server, operator: AsyncClient) -> None:
    path = f"{ADMIN}/orgs/{simulated.new_org().id}/credit"
    headers = {"Idempotency-Key": unused("credit")}
    answers = [ok(await operator.post(path, json={"amount_cents": 250}, headers=headers)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["balance_cents"] == 10_250
    told = ok(await operator.get(path))
    assert [entry["amount_cents"] for entry in told["data"]] == [250, 10_000]
    refused(await operator.post(path, json={"amount_cents": -20_000}), 400, param="amount_cents")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a", "role": "god"}, "role"),
        ({"name": "a", "requests_per_minute": -1}, "requests_per_minute"),
        ({"name": "a", "monthly_budget_cents": 10**13}, "monthly_budget_cents"),
        ({"name": "a", "models": "loam/demo"}, "models"),
        ({"name": "a", "models": ["no/model"]}, "models"),
        ({"name": "a", "expires_at": 1}, "expires_at"),
        ({"name": "a", "expires_at": None, "expires_in_seconds": 5}, None),
        ({"name": "a\u0000b"}, "name"),
    ],
)
async def test_what_cannot_be_is_a_400_that_says_what(
    simulated: Server, operator: AsyncClient, body: dict[str, object], param: str | None
) -> None:
    refused(await operator.post(f"{ADMIN}/orgs/{simulated.new_org().id}/keys", json=body), 400, param=param)


async def test_an_admin_keeps_its_own_organisations_keys_with_the_openai_package(simulated: Server) -> None:
    org = simulated.new_org()
    headers = await another_key(simulated, org, role="admin")
    with OpenAI(base_url=f"{simulated.url}/v1", api_key="-", admin_api_key=headers["Authorization"][7:]) as client:
        admin = client.admin.organization
        made = admin.admin_api_keys.create(name="second", expires_in_seconds=60)
        assert made.object == "organization.admin_api_key"
        assert made.value.startswith(made.redacted_value.removesuffix("..."))
        assert {key.id for key in admin.admin_api_keys.list(limit=1)} > {made.id}
        assert admin.admin_api_keys.retrieve(made.id).owner.name == org.name
        assert admin.admin_api_keys.delete(made.id).deleted
        with pytest.raises(NotFoundError):
            admin.admin_api_keys.retrieve(made.id)
        [project] = admin.projects.list()
        assert project.id == org.id
        [key] = admin.projects.api_keys.list(project.id)
        assert (key.object, key.owner_project_access) == ("organization.project.api_key", "active")
        assert admin.projects.api_keys.update(key.id, project_id="default", expires_in_seconds=9).expires_at
        assert admin.projects.api_keys.delete(key.id, project_id=project.id).deleted
        assert [log.id for log in admin.audit_logs.list(limit=1)][::-1] == sorted(
            log.id for log in admin.audit_logs.list()
        )


@pytest.mark.parametrize("role", [Role.SERVER, Role.ADMIN])
async def test_an_admin_finds_no_key_of_the_server_and_none_of_others(simulated: Server, role: Role) -> None:
    org = simulated.new_org()
    await another_key(simulated, org, role="server")
    other = simulated.new_org()
    async with AsyncClient(base_url=simulated.url, headers=await another_key(simulated, org, role=role)) as client:
        project = f"/v1/organization/projects/{org.id}/api_keys"
        listed = [
            *ok(await client.get("/v1/organization/admin_api_keys"))["data"],
            *ok(await client.get(project))["data"],
        ]
        assert "server" not in {key["role"] for key in listed}
        assert {key["organization_id"] for key in listed} == {org.id}
        refused(await client.post(project, json={"name": "a", "role": "server"}), 400, param="role")
        refused(await client.get(f"/v1/organization/projects/{other.id}/api_keys"), 404, param="project_id")
