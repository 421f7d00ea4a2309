"""What was used: hours that the database has summed up already, put together as asked."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.ledger import HOUR_SECONDS
from app.errors import BadRequest
from app.moments import month_began
from app.store.tables import UsageHour

DAY_SECONDS = 24 * HOUR_SECONDS
MAX_ROWS = 10_000


class Bucket(StrEnum):
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Group(StrEnum):
    """Named as the wire names them."""

    KEY = "key"
    MODEL = "model"
    KIND = "kind"
    GPU = "gpu"


@dataclass(frozen=True)
class Asked:
    """Whole hours from `start` until before `end`, epoch seconds."""

    start: float
    end: float
    bucket: Bucket = Bucket.DAY
    groups: Sequence[Group] = (Group.MODEL, Group.KIND)
    only: dict[Group, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    n_entries: int = 0
    cost_micros: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    trained_tokens: int = 0
    gpu_seconds: float = 0.0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class UsageRow:
    """Of one bucket, by its beginning; an empty word where an entry had none."""

    start_at: int
    groups: tuple[str, ...]
    figures: Figures


COLUMNS = {
    Group.KEY: UsageHour.key_id,
    Group.MODEL: UsageHour.model,
    Group.KIND: UsageHour.kind,
    Group.GPU: UsageHour.gpu,
}
FIGURES = (  # in the order of the class
    UsageHour.n_entries,
    -UsageHour.amount_micros,
    UsageHour.prompt_tokens,
    UsageHour.cached_tokens,
    UsageHour.completion_tokens,
    UsageHour.reasoning_tokens,
    UsageHour.trained_tokens,
    UsageHour.gpu_seconds,
)


async def usage(session: AsyncSession, org_id: str, asked: Asked) -> list[UsageRow]:
    """Oldest first. Credit is no usage. Raises BadRequest for more than can be told at once."""
    seconds = HOUR_SECONDS if asked.bucket is Bucket.HOUR else DAY_SECONDS
    start_at = (UsageHour.hour_at - UsageHour.hour_at % seconds).label("start_at")
    groups = [COLUMNS[group] for group in asked.groups]
    columns: list[Any] = [start_at, *groups, *(func.sum(figure) for figure in FIGURES)]
    rows = (
        select(*columns)
        .where(UsageHour.org_id == org_id, UsageHour.kind != "credit")
        .where(UsageHour.hour_at >= asked.start - asked.start % HOUR_SECONDS, UsageHour.hour_at < asked.end)
        .where(*(COLUMNS[group] == value for group, value in asked.only.items()))
        .group_by(start_at, *groups)
        .order_by(start_at, *groups)
        .limit(MAX_ROWS + 1)
    )
    found = [_row(row, len(groups)) for row in await session.execute(rows)]
    if len(found) > MAX_ROWS:
        raise BadRequest(f"That is more than {MAX_ROWS} rows; ask for less time, a larger bucket or fewer groups.")
    return by_month(found) if asked.bucket is Bucket.MONTH else found


def groups_of(text: str) -> list[Group]:
    """`key,model`. Raises BadRequest."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if unknown := [word for word in words if word not in set(Group)]:
        known = ", ".join(Group)
        raise BadRequest(f"group_by: {unknown[0][:50]!r} is none of {known}.", param="group_by")
    return [Group(word) for word in words]


def by_month(days: Iterable[UsageRow]) -> list[UsageRow]:
    months: dict[tuple[int, tuple[str, ...]], Figures] = {}
    for row in days:
        began = month_began(datetime.fromtimestamp(row.start_at, UTC))
        key = (int(began.timestamp()), row.groups)
        months[key] = months.get(key, Figures()) + row.figures
    return [UsageRow(*key, figures) for key, figures in sorted(months.items())]


def _row(row: Sequence[Any], n_groups: int) -> UsageRow:
    *counts, gpu_seconds = row[1 + n_groups :]
    figures: list[Any] = [*map(int, counts), float(gpu_seconds)]
    return UsageRow(int(row[0]), tuple(row[1 : 1 + n_groups]), Figures(*figures))
