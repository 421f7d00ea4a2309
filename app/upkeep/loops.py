"""What a gateway does beside answering: publish, share devices, look after its engines, sweep."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy import select

from app.catalog.spec import Catalog
from app.engines.pool import EnginePool
from app.engines.statuses import Statuses
from app.files.storage import Storage
from app.jobs.living_workers import tell_of_no_worker
from app.settings import Settings
from app.store.idempotency import forget_old
from app.store.session import Store
from app.store.tables import File
from app.upkeep.adapters import reconcile_adapters
from app.upkeep.pinned import start_pinned
from app.upkeep.publish import Publisher

log = structlog.get_logger()

Step = Callable[[], Awaitable[object]]

ORPHAN_FILE_SECONDS = 3600.0
HOLD_DEVICES = "hold devices"


def start_loops(
    settings: Settings, store: Store, catalog: Catalog, pool: EnginePool, publisher: Publisher, storage: Storage
) -> list[asyncio.Task[None]]:
    """Named after what they do. The caller cancels them."""
    slots = max(settings.max_loras, settings.max_cpu_loras)
    statuses = Statuses(store, pool)
    steps: list[tuple[str, Step, float]] = [
        ("publish", publisher.step, settings.poll_seconds),
        ("share devices", pool.look_at_devices, 2 * settings.poll_seconds),
        (HOLD_DEVICES, pool.hold_devices, settings.lease_seconds / 4),
        ("look after engines", pool.look_after, settings.lease_seconds / 4),
        ("reconcile adapters", lambda: reconcile_adapters(store, pool, slots=slots), settings.lease_seconds / 4),
        ("write statuses", lambda: statuses.write(seconds=settings.lease_seconds), settings.lease_seconds / 4),
        ("start pinned models", lambda: start_pinned(catalog, pool), settings.lease_seconds),
        ("tell of jobs without a worker", lambda: tell_of_jobs_without_worker(store, settings), settings.lease_seconds),
        ("sweep", lambda: sweep(store, storage), ORPHAN_FILE_SECONDS),
    ]
    return [asyncio.create_task(repeat(*step), name=step[0]) for step in steps]


async def repeat(name: str, step: Step, pause_seconds: float) -> None:
    """Until cancelled. A step that fails is logged and tried again: the database may be away for a while."""
    while True:
        try:
            await step()
        except Exception:
            log.exception("upkeep failed; trying again", step=name)
        await asyncio.sleep(pause_seconds)


async def tell_of_jobs_without_worker(store: Store, settings: Settings) -> None:
    """Workers that start with us, or start again, have their time."""
    async with store.begin() as session:
        await tell_of_no_worker(session, after_seconds=2 * settings.lease_seconds)


async def sweep(store: Store, storage: Storage) -> None:
    """Remove what nobody needs any more: old idempotency keys, and bytes that no row knows, left by a crash."""
    async with store.begin() as session:
        await forget_old(session)
    async with store.read() as session:
        known = set(await session.scalars(select(File.id).where(File.deleted_at.is_(None))))
    swept = storage.sweep(known, older_than=time.time() - ORPHAN_FILE_SECONDS)
    if swept:
        log.info("swept files of broken uploads", files=swept)
