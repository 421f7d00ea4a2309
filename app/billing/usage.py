"""What was used: days and hours that are summed up already, put together as asked."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from app.billing.sums import DAY_SECONDS, HOUR_SECONDS, used
from app.errors import BadRequest
from app.store.base import utc_month

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


@dataclass(slots=True)  # not frozen: that takes four times as long, and an answer may have thousands
class Figures:
    n_entries: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    trained_tokens: int = 0
    gpu_seconds: float = 0.0
    cost_micros: int = 0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(slots=True)
class UsageRow:
    """Of one bucket, by its beginning; an empty word where an entry had none."""

    start_at: int
    groups: tuple[str, ...]
    figures: Figures


COLUMNS = {Group.KEY: "key_id", Group.MODEL: "model", Group.KIND: "kind", Group.GPU: "gpu"}


async def usage(session: AsyncSession, org_id: str, asked: Asked) -> list[UsageRow]:
    """Oldest first. Credit is no usage. Raises BadRequest for more than can be told at once."""
    sums = used(org_id, asked.start, asked.end, by_hour=asked.bucket is Bucket.HOUR).c
    keys = [_start_at(sums.start_at, asked.bucket), *(sums[COLUMNS[group]] for group in asked.groups)]
    only = (sums[COLUMNS[group]] == value for group, value in asked.only.items())
    rows = select(*keys, *_figures(sums)).where(*only).group_by(*keys).limit(MAX_ROWS + 1)
    told = (await session.execute(rows)).all()  # at once: one by one takes three times as long
    found = [UsageRow(row[0], row[1 : len(keys)], Figures(*row[len(keys) :])) for row in told]
    if len(found) > MAX_ROWS:
        raise BadRequest(f"That is more than {MAX_ROWS} rows; ask for less time, a larger bucket or fewer groups.")
    return sorted(found, key=lambda row: (row.start_at, row.groups))


def _start_at(moment: ColumnElement[int], bucket: Bucket) -> ColumnElement[int]:
    if bucket is Bucket.MONTH:
        return utc_month(moment)
    return moment - moment % (HOUR_SECONDS if bucket is Bucket.HOUR else DAY_SECONDS)


def _figures(sums: ReadOnlyColumnCollection[str, Any]) -> list[ColumnElement[Any]]:
    """In the order of the class. A sum of whole numbers is a whole number: PostgreSQL's would be a decimal."""
    told = {**sums, "cost_micros": -sums.amount_micros}
    columns = [told[figure.name] for figure in fields(Figures)]
    return [cast(func.sum(column), column.type) for column in columns]


def groups_of(text: str) -> list[Group]:
    """`key,model`. Raises BadRequest."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if unknown := [word for word in words if word not in set(Group)]:
        known = ", ".join(Group)
        raise BadRequest(f"group_by: {unknown[0][:50]!r} is none of {known}.", param="group_by")
    return [Group(word) for word in words]
