"""What keys and organisations may still ask this minute, shared by all gateways through the store.

Every gateway counts on from what it last heard, and once in SHARE_SECONDS writes what it took and hears what all took
together. So the error is bounded: too much by what other gateways let in since it last heard, at most HEARD_SECONDS
ago, and it is paid back, since a bucket may be overdrawn. Tokens are counted when they have been used, so that
requests that run at the same time may overdraw theirs together; whoever comes after them waits. A gateway that is
killed takes with it what it had not told yet.
"""

import asyncio
import math
from collections.abc import Sequence
from operator import itemgetter

from sqlalchemy import case, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import APIError
from app.orgs.keys import CurrentKey, Limits
from app.orgs.rates import MINUTE, Bucket, as_duration
from app.store.base import db_now
from app.store.session import Store
from app.store.tables import RateLevel

SHARE_SECONDS = 1.0
HEARD_SECONDS = 3.0  # an exchange takes its time, and one may fail

LEFT = itemgetter(0)

Header = tuple[bytes, bytes]


class RateLimited(APIError):
    status_code, type, code = 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(self, what: str, per_minute: int, wait_seconds: float) -> None:
        super().__init__(
            f"The limit of {per_minute} {what} a minute is reached; try again in {as_duration(wait_seconds)}.",
            headers={"Retry-After": str(max(1, math.ceil(wait_seconds)))},
        )


class Allowance:
    """Of one key: its own buckets, and those that it shares with the other keys of its organisation."""

    def __init__(self, key: CurrentKey, requests: Sequence[Bucket], tokens: Sequence[Bucket]) -> None:
        self.key = key
        self._requests = requests
        self._tokens = tokens
        self._all = (*requests, *tokens)
        self._loop = asyncio.get_running_loop()

    def is_fresh(self) -> bool:
        oldest = self._loop.time() - HEARD_SECONDS
        for bucket in self._all:  # noqa: SIM110 - the hot path: a generator costs as much again
            if bucket.heard_at < oldest:
                return False
        return True

    def has_left(self) -> bool:
        """For one more request."""
        now = self._loop.time()
        for bucket in self._all:  # noqa: SIM110
            if bucket.left(now) < 1:
                return False
        return True

    def require(self) -> None:
        """Raises RateLimited unless there is something left."""
        if not self.has_left():
            raise self._refusal(self._loop.time())

    def take(self) -> None:
        """One request, of which it is known that it may be."""
        now = self._loop.time()
        for bucket in self._requests:
            bucket.take(1, now)
        for bucket in self._tokens:
            bucket.used_at = now

    def _refusal(self, now: float) -> RateLimited:
        """Of what takes longest."""
        named = [*(("requests", each) for each in self._requests), *(("tokens", each) for each in self._tokens)]
        what, bucket = max(named, key=lambda each: each[1].wait_seconds(now))
        return RateLimited(what, bucket.per_minute, bucket.wait_seconds(now))

    def spend(self, n_tokens: int) -> None:
        now = self._loop.time()
        for bucket in self._tokens:
            bucket.take(n_tokens, now)

    def headers(self) -> list[Header]:
        """As OpenAI tells of limits; of the two, the one that is reached first."""
        now = self._loop.time()
        headers: list[Header] = []
        for what, buckets in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if buckets:
                left, bucket = min([(each.left(now), each) for each in buckets], key=LEFT)
                headers += (
                    (b"x-ratelimit-limit-" + what, b"%d" % bucket.per_minute),
                    (b"x-ratelimit-remaining-" + what, b"%d" % max(0, left)),
                    (b"x-ratelimit-reset-" + what, as_duration(bucket.reset_seconds(now)).encode()),
                )
        return headers


class Allowances:
    """Of all keys that have asked this gateway. `share()` now and then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._buckets: dict[str, Bucket] = {}
        self._known: dict[str, Allowance] = {}

    def find_known(self, key: CurrentKey) -> Allowance | None:
        """What `of` gives, if it need not ask."""
        known = self._known.get(key.key_id)
        return known if known and known.key is key and known.is_fresh() else None

    async def of(self, key: CurrentKey) -> Allowance:
        """Of a key that has limits."""
        if known := self.find_known(key):
            return known
        own, org = (key.key_id, key.limits), (key.org_id, key.org_limits)
        wanted = {**_limits(*own), **_limits(*org)}
        await self._hear(wanted)
        for subject, per_minute in wanted.items():
            self._buckets[subject].per_minute = per_minute
        requests, tokens = ([self._buckets[s] for s in wanted if s.endswith(kind)] for kind in KINDS)
        allowance = self._known[key.key_id] = Allowance(key, requests, tokens)
        return allowance

    async def share(self) -> None:
        """Write what was taken here, and hear what was taken elsewhere, of all that was used in the last minute."""
        now = _now()
        active = {name: each for name, each in self._buckets.items() if each.unshared_seconds or _is_used(each, now)}
        if not active:
            return
        taken = {subject: bucket.unshared_seconds for subject, bucket in sorted(active.items())}
        async with self._store.begin() as session:
            levels = {subject: await _add(session, subject, seconds) for subject, seconds in taken.items() if seconds}
            levels |= await _levels(session, [subject for subject in taken if subject not in levels])
        for subject, bucket in active.items():
            bucket.hear(levels.get(subject, 0.0), taken[subject], _now())

    async def _hear(self, wanted: dict[str, int]) -> None:
        async with self._store.read() as session:
            levels = await _levels(session, list(wanted))
        now = _now()
        for subject, per_minute in wanted.items():
            bucket = self._buckets.setdefault(subject, Bucket(per_minute, now, now, now))
            bucket.hear(levels.get(subject, 0.0), 0.0, now)


KINDS = ("requests", "tokens")


def _limits(subject: str, limits: Limits) -> dict[str, int]:
    named = zip(KINDS, (limits.requests_per_minute, limits.tokens_per_minute), strict=True)
    return {f"{subject}/{kind}": per_minute for kind, per_minute in named if per_minute is not None}


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_used(bucket: Bucket, now: float) -> bool:
    return now - bucket.used_at < MINUTE


async def _add(session: AsyncSession, subject: str, seconds: float) -> float:
    """Put off when the bucket is full; in how many seconds that is now."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert if is_postgresql else sqlite.insert
    full_at = case((RateLevel.full_at > db_now(), RateLevel.full_at), else_=db_now()) + seconds
    row = insert(RateLevel).values(subject=subject, full_at=db_now() + seconds)
    row = row.on_conflict_do_update(index_elements=[RateLevel.subject], set_={"full_at": full_at})
    return float(await session.scalar(row.returning(RateLevel.full_at - db_now())) or 0.0)


async def _levels(session: AsyncSession, subjects: Sequence[str]) -> dict[str, float]:
    rows = select(RateLevel.subject, (RateLevel.full_at - db_now()).label("seconds"))
    rows = rows.where(RateLevel.subject.in_(subjects))
    return {row.subject: row.seconds for row in await session.execute(rows)}
