"""The sums that entries are rolled up into: by the hour, and by the day once it is over.

The database adds each entry to its hour in `usage_hours`. When a day is over, its hours move on to `usage_closed_hours`
and are added to `usage_days`. What is charged to it later opens an hour again, which moves on in its turn: days and
open hours, or closed and open hours, are at every moment all that was charged.
"""

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, Subquery, delete, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.session import Store, insert_into
from app.store.tables import UsageClosedHour, UsageDay, UsageHour

HOUR_SECONDS = 3600
DAY_SECONDS = 24 * HOUR_SECONDS
AFTER_ALL = DAY_SECONDS << 20

SHARED = ("org_id", "key_id", "model", "kind", "gpu")
SUMS = (
    "n_entries",
    "amount_micros",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "trained_tokens",
    "gpu_seconds",
)
STARTS = {UsageHour: "hour_at", UsageClosedHour: "hour_at", UsageDay: "day_at"}

Sums = dict[str, Any]  # by the names of the columns
Table = type[UsageHour | UsageClosedHour | UsageDay]


def used(org_id: str, start: float, end: float = AFTER_ALL, *, by_hour: bool = False) -> Subquery:
    """Sums, each with the `start_at` of its hour or day, that are together what was used from `start` until before
    `end`; hours are whole. Credit is no usage.
    """
    since, until = math.floor(start / HOUR_SECONDS) * HOUR_SECONDS, math.ceil(end)
    first, last = (until, until) if by_hour else whole_days(since, until)
    parts: list[tuple[Table, int, int]] = [
        (UsageHour, since, until),
        (UsageClosedHour, since, first),
        (UsageDay, first, last),
        (UsageClosedHour, last, until),
    ]
    return union_all(*(_part(org_id, *part) for part in parts)).subquery("used")


def whole_days(since: int, until: int) -> tuple[int, int]:
    """Where those between the two begin and end; both at `until` where there are none."""
    first, last = since + -since % DAY_SECONDS, until - until % DAY_SECONDS
    return (first, last) if first < last else (until, until)


def _part(org_id: str, table: Table, since: int, until: int) -> Select[Any]:
    of = table.__table__.c  # its rows are never objects
    start_at = of[STARTS[table]]
    wanted = (of.org_id == org_id, start_at >= since, start_at < until, of.kind != "credit")
    return select(start_at.label("start_at"), *(of[name] for name in (*SHARED[1:], *SUMS))).where(*wanted)


async def close_days(store: Store, now: float) -> None:
    """Those that were over an hour ago. Killed at any moment, or done by two at once, it does no harm."""
    settled = now - HOUR_SECONDS
    is_over = UsageHour.hour_at < settled - settled % DAY_SECONDS
    day = UsageHour.hour_at - UsageHour.hour_at % DAY_SECONDS
    async with store.read() as session:
        over = await session.execute(select(UsageHour.org_id, day).where(is_over).distinct())
        days = sorted((org_id, day_at) for org_id, day_at in over)
    for org_id, day_at in days:
        async with store.begin() as session:
            await _close(session, org_id, day_at)


async def _close(session: AsyncSession, org_id: str, day_at: int) -> None:
    of_day = (UsageHour.org_id == org_id, UsageHour.hour_at >= day_at, UsageHour.hour_at < day_at + DAY_SECONDS)
    columns = (getattr(UsageHour, name) for name in ("hour_at", *SHARED, *SUMS))
    taken = await session.execute(delete(UsageHour).where(*of_day).returning(*columns))
    if hours := [dict(hour) for hour in taken.mappings()]:
        await _add(session, UsageClosedHour, hours)
        await _add(session, UsageDay, [{"day_at": day_at, **day} for day in _together(hours)])


def _together(hours: Sequence[Sums]) -> list[Sums]:
    """One for all that have the same in common."""
    days: dict[tuple[str, ...], Sums] = {}
    for hour in hours:
        day = days.setdefault(tuple(hour[name] for name in SHARED), {name: hour[name] for name in SHARED})
        day |= {name: day.get(name, 0) + hour[name] for name in SUMS}
    return list(days.values())


async def _add(session: AsyncSession, table: type[UsageClosedHour | UsageDay], rows: Sequence[Sums]) -> None:
    new = insert_into(session, table)
    sums = {name: getattr(table, name) + new.excluded[name] for name in SUMS}
    keys = [STARTS[table], *SHARED]
    await session.execute(new.on_conflict_do_update(index_elements=keys, set_=sums), rows)
