"""The keys that a gateway knows: looked up once in a while, and forgotten as soon as any key changes anywhere."""

import hmac
import time

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.orgs.keys import CurrentKey, hash_key
from app.remembered import Remembered
from app.store.session import Store
from app.store.tables import ApiKey, Org, Revision

TELL_SECONDS = 30.0
HAND_OVER_SECONDS = 0.1  # from the short way to the application, which asks again


class KeyRing:
    """Authenticates keys. `keep_up()` several times a second, `tell_used()` now and then and at the end.

    What changes of a key or of its organisation the database counts. Where it cannot be asked for the count, a key is
    known until its entry has run out. `usual_at_once`: how many requests at once an organisation may make of which
    nothing else was said.
    """

    def __init__(self, store: Store, *, cache_seconds: float, usual_at_once: int | None = None) -> None:
        self._store = store
        self._usual_at_once = usual_at_once
        self._known: Remembered[str, CurrentKey] = Remembered(cache_seconds)
        self._refused: Remembered[str, bool] = Remembered(min(cache_seconds, HAND_OVER_SECONDS))
        self._used: dict[str, float] = {}
        self._revision: int | None = None

    async def authenticate(self, key: str) -> CurrentKey | None:
        """None for a key that is unknown, revoked or expired."""
        key_hash = hash_key(key)
        known = self.find_known(key_hash)
        if known or self._refused.find(key_hash):
            return known
        revision = self._revision
        found = await self._look_up(key_hash)
        if found:
            self._used[found.key_id] = time.time()
            if revision == self._revision:  # otherwise it may have changed since it was looked up
                self._known.add(key_hash, found)
        else:
            self._refused.add(key_hash, True)
        return found

    def find_known(self, key_hash: str) -> CurrentKey | None:
        """One that was authenticated a moment ago."""
        known = self._known.find(key_hash)
        return None if known is None or known.is_expired else known

    async def keep_up(self) -> None:
        """Costs nothing while no key is known."""
        if self._known.is_empty:
            return
        async with self._store.read() as session:
            revision = await session.scalar(select(Revision.number).where(Revision.name == "keys"))
        if revision != self._revision:
            self._revision = revision
            self._known.forget()

    async def tell_used(self) -> None:
        """When keys were used: of each, the last time that it was looked up, which it is again and again."""
        used = dict(self._used)
        if not used:
            return
        async with self._store.begin() as session:
            await _write_used(session, used)
        for key_id, used_at in used.items():
            if self._used[key_id] == used_at:
                del self._used[key_id]

    async def _look_up(self, key_hash: str) -> CurrentKey | None:
        async with self._store.read() as session:
            rows = select(ApiKey, Org).join(Org, Org.id == ApiKey.org_id)
            found = (await session.execute(rows.where(ApiKey.key_hash == key_hash))).first()
        if found is None:
            return None
        row, org = found
        if not hmac.compare_digest(row.key_hash, key_hash) or row.revoked_at or org.deleted_at:
            return None
        key = CurrentKey.of(row, org, usual_at_once=self._usual_at_once)
        return None if key.is_expired else key


async def _write_used(session: AsyncSession, used: dict[str, float]) -> None:
    """In one order always, so that two gateways do not lock crosswise."""
    is_later = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < bindparam("used_at"))
    row = update(ApiKey.__table__).where(ApiKey.id == bindparam("key_id"), is_later)  # type: ignore[arg-type]
    rows = [{"key_id": key_id, "used_at": used_at} for key_id, used_at in sorted(used.items())]
    await (await session.connection()).execute(row.values(last_used_at=bindparam("used_at")), rows)
