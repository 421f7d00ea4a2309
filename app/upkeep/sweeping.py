"""Sweeping: what nobody needs any more is counted, or removed a little at a time.

Killed at any moment, or done by two gateways at once, it does no harm: whoever comes next finds what is left.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio.to_thread
import structlog
from sqlalchemy import ColumnElement, Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.files.storage import Storage
from app.files.survey import size_bytes, survey
from app.jobs.states import UNFINISHED
from app.store.base import db_now
from app.store.idempotency import KEPT_SECONDS
from app.store.session import Store
from app.store.tables import Adapter, File, Hold, IdempotencyKey, Job, JobEvent, Org, RateLevel, UnderWay
from app.upkeep.garbage import GRACE_SECONDS, NAMES, Known, garbage
from app.upkeep.known import what_is_known

log = structlog.get_logger()

DAY_SECONDS = 24 * 3600.0
MAX_ROWS = 500  # in one transaction: others wait for it


@dataclass(frozen=True)
class Swept:
    """So many things of a kind, and their bytes where they are files."""

    what: str
    count: int
    size_bytes: int | None = None


class Sweep(Protocol):
    """`dry`: only tells what there is."""

    async def __call__(self, *, dry: bool) -> list[Swept]: ...


Remove = Callable[[AsyncSession, Sequence[str]], Awaitable[None]]


@dataclass(frozen=True)
class OldRows:
    """Rows of the table of `key` that may go; `remove` where others go with them."""

    what: str
    key: InstrumentedAttribute[str]
    are_old: ColumnElement[bool]
    remove: Remove | None = None


async def sweep_all(sweeps: Sequence[Sweep], *, dry: bool = False) -> list[Swept]:
    """One that fails does not keep the others from their work; it is tried again the next time."""
    swept: list[Swept] = []
    for sweep in sweeps:
        try:
            swept += [each for each in await sweep(dry=dry) if each.count]
        except Exception:
            log.exception("a sweep failed")
    return swept


async def sweep_and_tell(sweeps: Sequence[Sweep]) -> None:
    for swept in await sweep_all(sweeps):
        log.info("swept", what=swept.what, count=swept.count, size_bytes=swept.size_bytes)


async def sweep_rows(store: Store, rows: OldRows, *, dry: bool) -> list[Swept]:
    if dry:
        async with store.read() as session:
            count = await session.scalar(select(func.count()).select_from(rows.key.class_).where(rows.are_old))
        return [Swept(rows.what, count or 0)]
    total = count = await _remove_some(store, rows)
    while count == MAX_ROWS:
        count = await _remove_some(store, rows)
        total += count
    return [Swept(rows.what, total)]


async def _remove_some(store: Store, rows: OldRows) -> int:
    table = rows.key.class_
    # Another gateway that sweeps at the same time takes other ones.
    some = select(rows.key).where(rows.are_old).limit(MAX_ROWS).with_for_update(of=table, skip_locked=True)
    async with store.begin() as session:
        keys = list(await session.scalars(some))
        if rows.remove:
            await rows.remove(session, keys)
        else:
            await session.execute(delete(table).where(rows.key.in_(keys), rows.are_old))
        return len(keys)


async def sweep_idempotency_keys(store: Store, *, dry: bool) -> list[Swept]:
    are_old = IdempotencyKey.created_at < time.time() - KEPT_SECONDS
    return await sweep_rows(store, OldRows("idempotency keys", IdempotencyKey.key, are_old), dry=dry)


async def sweep_rate_levels(store: Store, *, dry: bool) -> list[Swept]:
    """A bucket that is full again needs no row."""
    are_full = RateLevel.full_at < db_now() - GRACE_SECONDS
    return await sweep_rows(store, OldRows("full rate limits", RateLevel.subject, are_full), dry=dry)


async def sweep_holds(store: Store, *, dry: bool) -> list[Swept]:
    """Of processes that are gone; they count for nothing already."""
    are_void = (Hold.expires_at < db_now()) & (Hold.kept_micros == 0)
    return await sweep_rows(store, OldRows("holds of nobody", Hold.holder, are_void), dry=dry)


async def sweep_under_way(store: Store, *, dry: bool) -> list[Swept]:
    """Of gateways that are gone, or that nobody asks any more."""
    are_old = UnderWay.expires_at < db_now() - GRACE_SECONDS
    return await sweep_rows(store, OldRows("counts of requests", UnderWay.subject, are_old), dry=dry)


def gone_orgs() -> Select[str]:
    """The ids of those that were deleted a while ago."""
    return select(Org.id).where(Org.deleted_at < time.time() - GRACE_SECONDS)


async def sweep_deleted_orgs(store: Store, *, dry: bool) -> list[Swept]:
    """Their files and models go the way of deleted ones: the bytes with the next sweep of the disk."""
    gone = gone_orgs()
    training = select(File.id).join(Job, (Job.training_file == File.id) | (Job.validation_file == File.id))
    files = (
        File.org_id.in_(gone) & File.deleted_at.is_(None) & File.id.not_in(training.where(Job.status.in_(UNFINISHED)))
    )
    models = Adapter.org_id.in_(gone) & Adapter.deleted_at.is_(None)
    return [
        *await sweep_rows(store, OldRows("files of deleted organisations", File.id, files, _mark(File)), dry=dry),
        *await sweep_rows(
            store, OldRows("models of deleted organisations", Adapter.id, models, _mark(Adapter)), dry=dry
        ),
    ]


def _mark(table: type[File | Adapter]) -> Remove:
    async def mark(session: AsyncSession, ids: Sequence[str]) -> None:
        await session.execute(update(table).where(table.id.in_(ids)).values(deleted_at=time.time()))

    return mark


async def sweep_job_events(store: Store, days: float, *, dry: bool) -> list[Swept]:
    """The last one stays, which says how the job ended."""
    is_over = Job.finished_at < time.time() - days * DAY_SECONDS
    last = select(Job.last_seq).where(Job.id == JobEvent.job_id, is_over).scalar_subquery()
    return await sweep_rows(store, OldRows("events of old jobs", JobEvent.id, JobEvent.seq < last), dry=dry)


async def sweep_disk(store: Store, storage: Storage, *, dry: bool) -> list[Swept]:
    async with store.read() as session:
        known = await what_is_known(session)
    return await anyio.to_thread.run_sync(_sweep_disk, storage, known, dry)


def _sweep_disk(storage: Storage, known: Known, dry: bool) -> list[Swept]:
    counts, sizes = Counter[str](), Counter[str]()
    for thing in list(garbage(survey(storage), known, now=time.time())):
        counts[NAMES[thing.kind]] += 1
        sizes[NAMES[thing.kind]] += size_bytes(thing.path)
        if not dry:
            storage.remove(thing.path)
    return [Swept(what, count, sizes[what]) for what, count in counts.items()]
