"""What is done to keys, and that it was done; never what they are."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.admin.changes import apply
from app.catalog.resolve import UnknownModel, resolve
from app.catalog.spec import Catalog
from app.errors import BadRequest, Conflict
from app.ids import new_id
from app.orgs.audit import Action, Actor, record
from app.orgs.keys import new_secret, of_secret
from app.orgs.roles import ADMINS, Role
from app.store.tables import ApiKey, Org

MAX_MODELS = 100


class KeyRevoked(Conflict):
    code = "api_key_revoked"

    def __init__(self, key: ApiKey) -> None:
        super().__init__(f"The key {key.id} was revoked, which cannot be undone; create another.")


async def create_key(
    session: AsyncSession, actor: Actor, catalog: Catalog, org: Org, values: Mapping[str, Any]
) -> tuple[ApiKey, str]:
    """`values` of the table's columns. The key itself, too: the only time it can be seen. Raises BadRequest."""
    secret = new_secret()
    key = ApiKey(id=new_id("key"), org_id=org.id, **{"role": Role.MEMBER, **values}, **of_secret(secret))
    await _check(session, catalog, key)
    session.add(key)
    await session.flush()
    given = {name: value for name, value in values.items() if value is not None}
    await record(session, actor, Action.KEY_CREATED, org.id, key.id, {"prefix": key.prefix, **given})
    return key, secret


async def update_key(
    session: AsyncSession, actor: Actor, catalog: Catalog, key: ApiKey, values: Mapping[str, Any]
) -> None:
    """Raises KeyRevoked, BadRequest."""
    _require_live(key)
    if changed := apply(key, values):
        await _check(session, catalog, key)
        await record(session, actor, Action.KEY_UPDATED, key.org_id, key.id, changed)


async def rotate_key(session: AsyncSession, actor: Actor, key: ApiKey) -> str:
    """Another secret for the same key; the one before is refused at once. Raises KeyRevoked."""
    _require_live(key)
    secret = new_secret()
    details = {"prefix": {"from": key.prefix, "to": of_secret(secret)["prefix"]}}
    apply(key, of_secret(secret))
    await record(session, actor, Action.KEY_ROTATED, key.org_id, key.id, details)
    return secret


async def revoke_key(session: AsyncSession, actor: Actor, key: ApiKey) -> None:
    """Again is harmless."""
    if key.revoked_at is None:
        apply(key, {"revoked_at": time.time()})
        await record(session, actor, Action.KEY_REVOKED, key.org_id, key.id, {"name": key.name})


def _require_live(key: ApiKey) -> None:
    if key.revoked_at is not None:
        raise KeyRevoked(key)


async def _check(session: AsyncSession, catalog: Catalog, key: ApiKey) -> None:
    """Raises BadRequest for what contradicts itself, or would never let anybody in."""
    if not key.name.strip() or not key.name.isprintable() or len(key.name) > 100:
        raise BadRequest("A key's name has 1 to 100 printable characters.", param="name")
    if key.expires_at is not None and key.expires_at <= time.time():
        raise BadRequest("The key would have expired already; to end it now, revoke it.", param="expires_at")
    if key.models is not None:
        await _check_models(session, catalog, key, key.models)


async def _check_models(session: AsyncSession, catalog: Catalog, key: ApiKey, models: Sequence[str]) -> None:
    if key.role in ADMINS:
        raise BadRequest("A key that may make others is not held by a list of models.", param="models")
    if len(models) > MAX_MODELS:
        raise BadRequest(f"A key may name up to {MAX_MODELS} models.", param="models")
    for name in models:
        try:
            await resolve(session, catalog, key.org_id, name)
        except UnknownModel as error:
            raise BadRequest(f"The organisation has no model '{name[:200]}'.", param="models") from error
