"""Whether what the database keeps up beside the ledger is what the ledger's entries add up to."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from sqlalchemy import Executable, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.ledger import HOUR_SECONDS
from app.store.tables import Balance, LedgerEntry, UsageHour

KEYS = ("org_id", "hour_at", "key_id", "model", "kind", "gpu")
SUMS = ("amount_micros", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "trained_tokens")
FLOAT_ERROR = 1e-6  # seconds are added in another order

Sums = Mapping[tuple[Any, ...], Mapping[str, Any]]


async def verify(session: AsyncSession) -> AsyncIterator[str]:
    """The differences, in words; none is what there should be. For a snapshot: nothing may be charged meanwhile."""
    balances = await _sums(session, select(Balance.org_id, Balance.micros), 1)
    total = func.sum(LedgerEntry.amount_micros).label("micros")
    entries = await _sums(session, select(LedgerEntry.org_id, total).group_by(LedgerEntry.org_id), 1)
    for difference in compare("balance", entries, balances):
        yield difference
    hours = select(*(getattr(UsageHour, name) for name in (*KEYS, "n_entries", *SUMS, "gpu_seconds")))
    recomputed = await _sums(session, _by_hour(), len(KEYS))
    for difference in compare("usage", recomputed, await _sums(session, hours, len(KEYS))):
        yield difference


def compare(what: str, entries: Sums, kept: Sums) -> list[str]:
    """A sum of nothing is the same as none."""
    found = []
    for key in sorted(entries.keys() | kept.keys()):
        ours, theirs = entries.get(key, {}), kept.get(key, {})
        for name in sorted(ours.keys() | theirs.keys()):
            expected, told = ours.get(name, 0), theirs.get(name, 0)
            if abs(expected - told) > (FLOAT_ERROR * max(1.0, abs(expected)) if name == "gpu_seconds" else 0):
                found.append(f"{what} of {' '.join(map(str, key))}: {name} is {told}, its entries say {expected}")
    return found


def _by_hour() -> Select[Any]:
    hour = (func.floor(LedgerEntry.created_at / HOUR_SECONDS) * HOUR_SECONDS).label("hour_at")
    optional = [func.coalesce(getattr(LedgerEntry, name), "").label(name) for name in ("key_id", "model")]
    keys = [LedgerEntry.org_id, hour, *optional, LedgerEntry.kind, func.coalesce(LedgerEntry.gpu, "").label("gpu")]
    sums = [func.sum(getattr(LedgerEntry, name)).label(name) for name in (*SUMS, "gpu_seconds")]
    return select(*keys, func.count().label("n_entries"), *sums).group_by(*keys)


async def _sums(session: AsyncSession, rows: Executable, n_keys: int) -> Sums:
    found = {}
    for row in await session.execute(rows):
        names = list(map(str, row._mapping))  # noqa: SLF001 - SQLAlchemy's name for what it offers
        key = tuple(int(part) if isinstance(part, float) else part for part in row[:n_keys])
        found[key] = dict(zip(names[n_keys:], row[n_keys:], strict=True))
    return found
