"""What is done to organisations, keys and credit: it holds, it is written down, and no secret is."""

import time
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.admin import credit, keys, organisations
from app.billing.ledger import balance_micros
from app.errors import BadRequest, Conflict
from app.jobs.states import Status
from app.orgs.audit import Actor, AuditFilter
from app.orgs.auth import InvalidKey
from app.orgs.key_ring import KeyRing
from app.orgs.quotas import lock_org
from app.orgs.roles import Role
from app.orgs.service import find_org
from app.settings import Settings
from app.store.session import Store
from app.store.tables import AuditEntry, Job, Org
from tests.rows import CATALOG, give_credit, make_job

pytestmark = pytest.mark.anyio

ACTOR = Actor("key_someone", "192.0.2.1")


async def new_org(session: AsyncSession, name: str = "acme") -> Org:
    return await organisations.create_org(session, ACTOR, Settings(welcome_credit_cents=500), name, {})


async def acts(session: AsyncSession, **wanted: Any) -> list[AuditEntry]:
    rows = AuditFilter(**wanted).rows().order_by(AuditEntry.id)
    return list(await session.scalars(rows))


async def test_all_that_is_done_to_a_key_is_written_down_without_a_secret(store: Store) -> None:
    async with store.begin() as session:
        org = await new_org(session)
        values = {"name": "ci", "models": ["test/A"], "tokens_per_minute": 5}
        key, first = await keys.create_key(session, ACTOR, CATALOG, org, values)
        changes: dict[str, Any] = {"role": Role.READ, "tokens_per_minute": None, "name": "ci"}
        await keys.update_key(session, ACTOR, CATALOG, key, changes)
        await keys.update_key(session, ACTOR, CATALOG, key, changes)  # nothing more
        second = await keys.rotate_key(session, ACTOR, key)
        await keys.revoke_key(session, ACTOR, key)
        await keys.revoke_key(session, ACTOR, key)  # nothing more
    async with store.read() as session:
        found = await acts(session, target=key.id)
    assert [entry.action.partition(".")[2] for entry in found] == ["created", "updated", "rotated", "revoked"]
    assert found[0].details == {"prefix": first[:12], **values}
    assert found[1].details == {
        "role": {"from": "member", "to": "read"},
        "tokens_per_minute": {"from": 5, "to": None},
    }
    assert {(entry.org_id, entry.actor, entry.address) for entry in found} == {(org.id, "key_someone", "192.0.2.1")}
    told = str([entry.details for entry in found])
    assert first[12:] not in told
    assert second[12:] not in told


async def test_a_rotated_key_lets_in_by_its_new_secret_only(store: Store) -> None:
    async with store.begin() as session:
        key, first = await keys.create_key(session, ACTOR, CATALOG, await new_org(session), {"name": "ci"})
        second = await keys.rotate_key(session, ACTOR, key)
    ring = KeyRing(store, cache_seconds=60)
    assert await ring.authenticate(first) is None
    found = await ring.authenticate(second)
    assert found
    assert found.key_id == key.id


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"expires_at": 1.0}, "expires_at"),
        ({"models": ["test/nowhere"]}, "models"),
        ({"models": ["test/a"] * 101}, "models"),
        ({"models": ["test/a"], "role": Role.ADMIN}, "models"),
        ({"models": [], "role": Role.SERVER}, "models"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(store: Store, values: dict[str, Any], param: str) -> None:
    async with store.read() as session:
        org = await new_org(session)
        with pytest.raises(BadRequest) as made:
            await keys.create_key(session, ACTOR, CATALOG, org, {"name": "ci", **values})
        key, _ = await keys.create_key(session, ACTOR, CATALOG, org, {"name": "ci"})
        with pytest.raises(BadRequest) as changed:
            await keys.update_key(session, ACTOR, CATALOG, key, values)
    assert made.value.param == changed.value.param == param


async def test_a_revoked_key_stays_revoked(store: Store) -> None:
    async with store.begin() as session:
        key, _ = await keys.create_key(session, ACTOR, CATALOG, await new_org(session), {"name": "ci"})
        await keys.revoke_key(session, ACTOR, key)
        with pytest.raises(Conflict):
            await keys.rotate_key(session, ACTOR, key)
        with pytest.raises(Conflict):
            await keys.update_key(session, ACTOR, CATALOG, key, {"expires_at": time.time() + 60})


async def test_a_deleted_organisation_is_let_in_no_more_and_its_name_is_free(store: Store) -> None:
    async with store.begin() as session:
        org = await new_org(session)
        _, secret = await keys.create_key(session, ACTOR, CATALOG, org, {"name": "ci"})
        await give_credit(session, org.id)
        job_id = (await make_job(session, org)).id
        with pytest.raises(Conflict):
            await new_org(session)
    async with store.begin() as session:
        await organisations.delete_org(session, ACTOR, CATALOG, await session.get_one(Org, org.id))
    async with store.begin() as session:
        assert (await session.get_one(Job, job_id)).status == Status.CANCELLED
        assert await find_org(session, org.id) is None
        assert (await new_org(session)).id != org.id
        with pytest.raises(InvalidKey):
            await lock_org(session, org.id)
        assert [entry.action for entry in await acts(session, org_id=org.id)][-1] == "organization.deleted"
    assert await KeyRing(store, cache_seconds=60).authenticate(secret) is None


@pytest.mark.parametrize("name", ["", " acme", "a\tb", "org_1", "x" * 101])
async def test_some_names_no_organisation_can_have(store: Store, name: str) -> None:
    async with store.read() as session:
        with pytest.raises(BadRequest):
            await new_org(session, name)
        with pytest.raises(BadRequest):
            await organisations.update_org(session, ACTOR, await new_org(session), {"name": name})


async def test_credit_is_taken_back_as_far_as_there_is_some(store: Store) -> None:
    async with store.begin() as session:
        org = await new_org(session)
        for n, micros in enumerate((3_000_000, -8_000_000)):
            await credit.add_credit(session, ACTOR, org, micros, f"credit_{n}")
        assert await balance_micros(session, org.id) == 0
        for micros in (-1, 0, 10**16):
            with pytest.raises(BadRequest):
                await credit.add_credit(session, ACTOR, org, micros, "credit_2")
        amounts = [entry.details["amount_micros"] for entry in await acts(session, action="credit.added")]
    assert amounts == [3_000_000, -8_000_000]


async def test_the_audit_log_is_only_ever_added_to(store: Store) -> None:
    async with store.begin() as session:
        await new_org(session)
    for change in (update(AuditEntry).values(actor="nobody"), delete(AuditEntry)):
        with pytest.raises(DBAPIError, match="append-only"):
            async with store.begin() as session:
                await session.execute(change)
    async with store.read() as session:
        assert [entry.actor for entry in await session.scalars(select(AuditEntry))] == ["key_someone"]


async def test_the_log_can_be_asked_for_an_act_by_its_time(store: Store) -> None:
    async with store.begin() as session:
        org = await new_org(session)
        [created] = await acts(session)
        await credit.add_credit(session, ACTOR, org, 1, "credit_1")
        at = created.created_at
        assert [entry.action for entry in await acts(session, since=at, until=at + 1e-6)] == ["organization.created"]
        assert await acts(session, until=at) == []
        assert await acts(session, actor="nobody") == []
