"""Whether what the database keeps up beside the ledger is what the ledger's entries add up to."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from sqlalchemy import CompoundSelect, Executable, Select, SQLColumnExpression, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.sums import DAY_SECONDS, HOUR_SECONDS, SHARED, SUMS
from app.store.session import Store
from app.store.tables import Balance, LedgerEntry, UsageClosedHour, UsageDay, UsageHour

KEYS = ("org_id", "start_at", *SHARED[1:])
FLOAT_ERROR = 1e-6  # seconds are added in another order

Sums = Mapping[tuple[Any, ...], Mapping[str, Any]]


async def verify(store: Store) -> AsyncIterator[str]:
    """The differences, in words; none is what there should be. It sees one moment, and who charges does not wait."""
    day_at = UsageClosedHour.hour_at - UsageClosedHour.hour_at % DAY_SECONDS
    total = func.sum(LedgerEntry.amount_micros).label("micros")
    async with store.read() as session:
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        entries = await _sums(session, select(LedgerEntry.org_id, total).group_by(LedgerEntry.org_id), 1)
        balances = await _sums(session, select(Balance.org_id, Balance.micros), 1)
        for difference in compare("balance", entries, balances):
            yield difference
        hours = union_all(*(_kept(table, table.hour_at) for table in (UsageClosedHour, UsageHour)))
        for what, rows, kept in (
            ("usage", _of_entries(), hours),
            ("usage of the day", _kept(UsageClosedHour, day_at), _kept(UsageDay, UsageDay.day_at)),
        ):
            for difference in compare(what, await _added(session, rows), await _added(session, kept)):
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


def _kept(table: type[UsageHour | UsageClosedHour | UsageDay], start_at: SQLColumnExpression[int]) -> Select[Any]:
    columns = (getattr(table, name) for name in (*SHARED, *SUMS))
    return select(start_at.label("start_at"), *columns)


def _of_entries() -> Select[Any]:
    hour_at = func.floor(LedgerEntry.created_at / HOUR_SECONDS) * HOUR_SECONDS
    optional = (func.coalesce(getattr(LedgerEntry, name), "").label(name) for name in ("key_id", "model", "gpu"))
    sums = (getattr(LedgerEntry, name) for name in SUMS if name != "n_entries")
    shared = (LedgerEntry.org_id, hour_at.label("start_at"), LedgerEntry.kind, *optional)
    return select(*shared, literal(1).label("n_entries"), *sums)


async def _added(session: AsyncSession, rows: Select[Any] | CompoundSelect[Any]) -> Sums:
    added = rows.subquery().c
    keys = [added[name] for name in KEYS]
    sums = (func.sum(added[name]).label(name) for name in SUMS)
    return await _sums(session, select(*keys, *sums).group_by(*keys), len(KEYS))


async def _sums(session: AsyncSession, rows: Executable, n_keys: int) -> Sums:
    found = {}
    for row in await session.execute(rows):
        names = list(map(str, row._mapping))  # noqa: SLF001 - SQLAlchemy's name for what it offers
        key = tuple(int(part) if isinstance(part, float) else part for part in row[:n_keys])
        found[key] = dict(zip(names[n_keys:], row[n_keys:], strict=True))
    return found
