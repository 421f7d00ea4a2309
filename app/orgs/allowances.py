"""What keys and organisations may still ask this minute, shared by all gateways through the store.

Every gateway counts on from what it last heard, and once in SHARE_SECONDS writes what it took and hears what all took
together. So the error is bounded: too much by what other gateways let in since it last heard, at most HEARD_SECONDS
ago, and it is paid back, since a bucket may be overdrawn. Tokens are counted when they have been used, so that
requests that run at the same time may overdraw theirs together; whoever comes after them waits. A gateway that is
killed takes with it what it had not told yet.

How many requests run at once is exact for one gateway. Of those on others it knows what it last heard: together they
are too many by what the others began since then, which is at most 4 s, and never more than one limit for each gateway.
What ran on a gateway that was killed counts for KEPT_SECONDS more.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from operator import itemgetter

from sqlalchemy import case, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import APIError
from app.ids import new_id
from app.orgs import at_once
from app.orgs.at_once import Crowd, TooManyAtOnce
from app.orgs.keys import CurrentKey
from app.orgs.rates import MINUTE, Bucket, as_duration
from app.store.base import db_now
from app.store.session import Store, insert_into
from app.store.tables import RateLevel

SHARE_SECONDS = 1.0
HEARD_SECONDS = 3.0  # an exchange takes its time, and one may fail
KEPT_SECONDS = 5.0
NEVER = -math.inf

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
    """Of one key: its own limits, and those that it shares with the other keys of its organisation."""

    def __init__(
        self, key: CurrentKey, requests: Sequence[Bucket], tokens: Sequence[Bucket], crowds: Sequence[Crowd]
    ) -> None:
        self.key = key
        self._requests = requests
        self._tokens = tokens
        self._crowds = crowds
        self._all: tuple[Bucket | Crowd, ...] = (*requests, *tokens, *crowds)
        self._loop = asyncio.get_running_loop()

    def is_fresh(self) -> bool:
        oldest = self._loop.time() - HEARD_SECONDS
        for limit in self._all:  # noqa: SIM110 - the hot path: a generator costs as much again
            if limit.heard_at < oldest:
                return False
        return True

    def has_left(self) -> bool:
        """For one more request."""
        now = self._loop.time()
        for limit in self._all:  # noqa: SIM110
            if limit.left(now) < 1:
                return False
        return True

    def require(self) -> None:
        """Raises RateLimited, TooManyAtOnce unless there is something left."""
        if not self.has_left():
            raise self._refusal(self._loop.time())

    def take(self) -> None:
        """One request, of which it is known that it may be."""
        now = self._loop.time()
        for bucket in self._requests:
            bucket.take(1, now)
        for bucket in self._tokens:
            bucket.used_at = now

    def begin(self) -> None:
        """One more is under way, until its `end`. Raises TooManyAtOnce."""
        now = self._loop.time()
        for crowd in self._crowds:
            if crowd.left(now) < 1:
                raise TooManyAtOnce(crowd)
        for crowd in self._crowds:
            crowd.mine += 1
            crowd.used_at = now

    def end(self) -> None:
        for crowd in self._crowds:
            crowd.mine -= 1

    def _refusal(self, now: float) -> RateLimited | TooManyAtOnce:
        """Of what takes longest; when one of those under way ends, nobody knows."""
        named = [*(("requests", each) for each in self._requests), *(("tokens", each) for each in self._tokens)]
        lacking = [(what, bucket) for what, bucket in named if bucket.left(now) < 1]
        if not lacking:
            return TooManyAtOnce(min(self._crowds, key=lambda crowd: crowd.left(now)))
        what, bucket = max(lacking, key=lambda each: each[1].wait_seconds(now))
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
        self._gateway = new_id("gateway")
        self._buckets: dict[str, Bucket] = {}
        self._crowds: dict[str, Crowd] = {}
        self._known: dict[str, Allowance] = {}

    def find_known(self, key: CurrentKey) -> Allowance | None:
        """What `of` gives, if it need not ask."""
        known = self._known.get(key.key_id)
        return known if known and known.key is key and known.is_fresh() else None

    async def of(self, key: CurrentKey) -> Allowance:
        """Of a key that has limits."""
        if known := self.find_known(key):
            return known
        rates, limits = _rates_of(key), _at_once_of(key)
        await self._hear(rates, limits)
        requests, tokens = ([self._buckets[s] for s in rates if s.endswith(kind)] for kind in KINDS)
        crowds = [self._crowds[subject] for subject in limits]
        allowance = self._known[key.key_id] = Allowance(key, requests, tokens, crowds)
        return allowance

    async def share(self) -> None:
        """Write what was taken here and what runs here, and hear of the others', of all that was used of late."""
        now = _now()
        buckets = {name: each for name, each in self._buckets.items() if each.unshared_seconds or _is_used(each, now)}
        crowds = {name: each for name, each in self._crowds.items() if each.mine or each.told or _is_used(each, now)}
        if not (buckets or crowds):
            return
        taken = {subject: bucket.unshared_seconds for subject, bucket in sorted(buckets.items())}
        running = {subject: crowd.mine for subject, crowd in sorted(crowds.items()) if crowd.mine or crowd.told}
        async with self._store.begin() as session:
            levels = {subject: await _add(session, subject, seconds) for subject, seconds in taken.items() if seconds}
            levels |= await _levels(session, [subject for subject in taken if subject not in levels])
            if running:
                await at_once.tell(session, self._gateway, running, seconds=KEPT_SECONDS)
            others = await at_once.hear(session, self._gateway, list(crowds))
        for subject, bucket in buckets.items():
            bucket.hear(levels.get(subject, 0.0), taken[subject], _now())
        for subject, crowd in crowds.items():
            crowd.hear(others.get(subject, 0), running.get(subject, 0), _now())

    async def _hear(self, rates: Mapping[str, int], limits: Mapping[str, tuple[str, int]]) -> None:
        """What was shared while the store was asked its answer may not know of: who has heard since is not told."""
        asked_at = _now()
        async with self._store.read() as session:
            levels = await _levels(session, list(rates))
            others = await at_once.hear(session, self._gateway, list(limits))
        now = _now()
        for subject, per_minute in rates.items():
            bucket = self._buckets.setdefault(subject, Bucket(per_minute, now, NEVER, now))
            bucket.per_minute = per_minute
            if bucket.heard_at < asked_at:
                bucket.hear(levels.get(subject, 0.0), 0.0, now)
        for subject, (whose, limit) in limits.items():
            crowd = self._crowds.setdefault(subject, Crowd(whose, limit, now, now))
            crowd.limit = limit
            crowd.hear(others.get(subject, 0), crowd.told, now)


KINDS = ("requests", "tokens")


def _rates_of(key: CurrentKey) -> dict[str, int]:
    """By subject."""
    found = {}
    for subject, limits in ((key.key_id, key.limits), (key.org_id, key.org_limits)):
        for kind, per_minute in zip(KINDS, (limits.requests_per_minute, limits.tokens_per_minute), strict=True):
            if per_minute is not None:
                found[f"{subject}/{kind}"] = per_minute
    return found


def _at_once_of(key: CurrentKey) -> dict[str, tuple[str, int]]:
    """By subject, and in words whose."""
    limits = {key.key_id: ("this key", key.limits), key.org_id: ("this organisation", key.org_limits)}
    return {
        subject: (whose, limit.requests_at_once)
        for subject, (whose, limit) in limits.items()
        if limit.requests_at_once is not None
    }


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_used(limit: Bucket | Crowd, now: float) -> bool:
    return now - limit.used_at < MINUTE


async def _add(session: AsyncSession, subject: str, seconds: float) -> float:
    """Put off when the bucket is full; in how many seconds that is now."""
    full_at = case((RateLevel.full_at > db_now(), RateLevel.full_at), else_=db_now()) + seconds
    row = insert_into(session, RateLevel).values(subject=subject, full_at=db_now() + seconds)
    row = row.on_conflict_do_update(index_elements=[RateLevel.subject], set_={"full_at": full_at})
    return float(await session.scalar(row.returning(RateLevel.full_at - db_now())) or 0.0)


async def _levels(session: AsyncSession, subjects: Sequence[str]) -> dict[str, float]:
    rows = select(RateLevel.subject, (RateLevel.full_at - db_now()).label("seconds"))
    rows = rows.where(RateLevel.subject.in_(subjects))
    return {row.subject: row.seconds for row in await session.execute(rows)}
