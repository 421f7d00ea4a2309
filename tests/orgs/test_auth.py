"""Keys: kept as hashes, revoked and expired ones refused, read from one well-formed header only."""

import time

import pytest
from sqlalchemy import select, update
from starlette.types import Scope

from app.errors import NotFound
from app.orgs.auth import bearer_token
from app.orgs.keys import CurrentKey, KeyRing, create_key, hash_key
from app.orgs.roles import Role
from app.orgs.service import revoke_key
from app.store.session import Store
from app.store.tables import ApiKey
from tests.rows import make_org

pytestmark = pytest.mark.anyio


async def new_key(store: Store) -> tuple[str, ApiKey]:
    async with store.begin() as session:
        org = await make_org(session)
        key = await create_key(session, org, name="test")
        row = await session.scalar(select(ApiKey).where(ApiKey.org_id == org.id))
    assert row
    return key, row


async def test_a_key_is_known_and_not_kept(store: Store) -> None:
    key, row = await new_key(store)
    assert await KeyRing(store, cache_seconds=5).authenticate(key) == CurrentKey(row.org_id, row.id, Role.MEMBER)
    assert row.key_hash == hash_key(key)
    assert all(key not in str(getattr(row, column.key)) for column in ApiKey.__table__.columns)


@pytest.mark.parametrize("wrong", ["", "sk-loam-", "x" * 256, "' OR 1=1 --"])
async def test_an_unknown_key_is_nobody(store: Store, wrong: str) -> None:
    key, _ = await new_key(store)
    ring = KeyRing(store, cache_seconds=5)
    assert await ring.authenticate(wrong) is None
    assert await ring.authenticate(key[:-1]) is None
    assert await ring.authenticate(hash_key(key)) is None


async def test_an_expired_key_is_nobody(store: Store) -> None:
    key, row = await new_key(store)
    async with store.begin() as session:
        await session.execute(update(ApiKey).where(ApiKey.id == row.id).values(expires_at=time.time() - 1))
    assert await KeyRing(store, cache_seconds=5).authenticate(key) is None


async def test_a_revoked_key_is_nobody_and_can_be_revoked_once(store: Store) -> None:
    key, row = await new_key(store)
    async with store.begin() as session:
        await revoke_key(session, row.id)
        await revoke_key(session, row.id)  # harmless
        with pytest.raises(NotFound):
            await revoke_key(session, "key_nobody")
    assert await KeyRing(store, cache_seconds=5).authenticate(key) is None


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([(b"authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"bearer abc")], "abc"),
        ([(b"authorization", b"Bearer  abc ")], "abc"),
        ([(b"authorization", b"Basic abc")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer \xff")], None),
        ([(b"authorization", b"Bearer " + b"x" * 257)], None),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")], None),
        ([], None),
    ],
)
def test_only_one_well_formed_header_is_read(headers: list[tuple[bytes, bytes]], token: str | None) -> None:
    scope: Scope = {"type": "http", "headers": headers}
    assert bearer_token(scope) == token
