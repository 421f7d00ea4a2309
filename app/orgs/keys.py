"""API keys: made once, kept as hashes, looked up through a short-lived cache."""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Self

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.ids import new_id
from app.orgs.roles import Role
from app.remembered import Remembered
from app.store.session import Store
from app.store.tables import ApiKey, Org

PREFIX = "sk-loam-"


@dataclass(frozen=True)
class Limits:
    """Of a key, or of an organisation: of all its keys together. None is no limit; a month is UTC's."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    monthly_budget_micros: int | None = None
    requests_at_once: int | None = None

    @property
    def throttles(self) -> bool:
        """Whether anything bounds what may be asked of models at once or in a minute."""
        bounds = (self.requests_per_minute, self.tokens_per_minute, self.requests_at_once)
        return any(bound is not None for bound in bounds)

    @classmethod
    def of(cls, row: ApiKey | Org, *, usual_at_once: int | None = None) -> Self:
        at_once = usual_at_once if row.requests_at_once is None else row.requests_at_once
        return cls(row.requests_per_minute, row.tokens_per_minute, row.monthly_budget_micros, at_once)


@dataclass(frozen=True)
class CurrentKey:
    """Who is asking: an organisation, by one of its keys. `models`, in lower case: those it may use, None for all."""

    org_id: str
    key_id: str
    role: Role
    models: frozenset[str] | None = None
    expires_at: float | None = None
    limits: Limits = Limits()
    org_limits: Limits = Limits()

    @property
    def is_throttled(self) -> bool:
        return self.limits.throttles or self.org_limits.throttles

    @classmethod
    def of(cls, row: ApiKey, org: Org, *, usual_at_once: int | None = None) -> Self:
        models = None if row.models is None else frozenset(name.lower() for name in row.models)
        own, orgs = Limits.of(row), Limits.of(org, usual_at_once=usual_at_once)
        return cls(row.org_id, row.id, Role(row.role), models, row.expires_at, own, orgs)

    def may_use(self, model: str) -> bool:
        """Whoever may use a fine-tune may use its checkpoints."""
        if self.models is None:
            return True
        name = model.lower()
        return name in self.models or name.partition(":ckpt-step-")[0] in self.models


def hash_key(key: str) -> str:
    """Keys carry 256 random bits, so a plain SHA-256 cannot be guessed back."""
    return hashlib.sha256(key.encode()).hexdigest()


async def create_key(session: AsyncSession, org: Org, *, name: str, role: Role = Role.MEMBER) -> str:
    """The new key itself: the only time it can be seen."""
    key = PREFIX + secrets.token_urlsafe(32)
    row = ApiKey(id=new_id("key"), org_id=org.id, name=name, prefix=key[:12], key_hash=hash_key(key), role=role)
    session.add(row)
    await session.flush()
    return key


class KeyRing:
    """Authenticates keys. A revoked key is refused once its cache entry has run out.

    `usual_at_once`: how many requests at once an organisation may make of which nothing else was said.
    """

    def __init__(self, store: Store, *, cache_seconds: float, usual_at_once: int | None = None) -> None:
        self._store = store
        self._usual_at_once = usual_at_once
        self._known: Remembered[str, CurrentKey] = Remembered(cache_seconds)

    async def authenticate(self, key: str) -> CurrentKey | None:
        """None for a key that is unknown, revoked or expired."""
        key_hash = hash_key(key)
        if known := self._known.find(key_hash):
            return known
        found = await self._look_up(key_hash)
        if found:
            self._known.add(key_hash, found)
        return found

    def find_known(self, key_hash: str) -> CurrentKey | None:
        """One that was authenticated a moment ago."""
        return self._known.find(key_hash)

    async def _look_up(self, key_hash: str) -> CurrentKey | None:
        async with self._store.read() as session:
            rows = select(ApiKey, Org).join(Org, Org.id == ApiKey.org_id)
            found = (await session.execute(rows.where(ApiKey.key_hash == key_hash))).first()
        if found is None:
            return None
        row, org = found
        if not hmac.compare_digest(row.key_hash, key_hash) or row.revoked_at or org.deleted_at:
            return None
        if row.expires_at is not None and row.expires_at <= time.time():
            return None
        return CurrentKey.of(row, org, usual_at_once=self._usual_at_once)
