"""What a gateway does beside answering: publish, share devices, look after its engines, close days, sweep."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from app.billing.sums import close_days
from app.catalog.spec import Catalog
from app.engines.pool import EnginePool
from app.engines.statuses import Statuses
from app.jobs.funding import any_waits_for_credit, resume_funded
from app.jobs.living_workers import tell_of_no_worker
from app.settings import Settings
from app.store.session import Store
from app.upkeep.adapters import reconcile_adapters
from app.upkeep.pinned import start_pinned
from app.upkeep.publish import Publisher
from app.upkeep.sweeping import Sweep, sweep_and_tell

log = structlog.get_logger()

Step = Callable[[], Awaitable[object]]

SWEEP_SECONDS = 3600.0
HOLD_DEVICES = "hold devices"


def start_loops(
    settings: Settings,
    store: Store,
    catalog: Catalog,
    pool: EnginePool,
    publisher: Publisher,
    sweeps: Sequence[Sweep],
) -> list[asyncio.Task[None]]:
    """Named after what they do. The caller cancels them."""
    slots = max(settings.max_loras, settings.max_cpu_loras)
    statuses = Statuses(store, lambda: pool.present)
    steps: list[tuple[str, Step, float]] = [
        ("publish", publisher.step, settings.poll_seconds),
        ("share devices", pool.look_at_devices, 2 * settings.poll_seconds),
        (HOLD_DEVICES, pool.hold_devices, settings.lease_seconds / 4),
        ("look after engines", pool.look_after, settings.lease_seconds / 4),
        ("reconcile adapters", lambda: reconcile_adapters(store, pool, slots=slots), settings.lease_seconds / 4),
        ("write statuses", lambda: statuses.write(seconds=settings.lease_seconds), settings.lease_seconds / 4),
        ("save results", publisher.save_results, settings.lease_seconds),
        ("start pinned models", lambda: start_pinned(catalog, pool), settings.lease_seconds),
        ("resume funded jobs", lambda: resume_funded_jobs(settings, store, catalog), 4 * settings.poll_seconds),
        ("tell of jobs without a worker", lambda: tell_of_jobs_without_worker(store, settings), settings.lease_seconds),
        ("close days", lambda: close_days(store, time.time()), SWEEP_SECONDS),
        ("sweep", lambda: sweep_and_tell(sweeps), SWEEP_SECONDS),
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


async def resume_funded_jobs(settings: Settings, store: Store, catalog: Catalog) -> None:
    async with store.read() as session:
        if not await any_waits_for_credit(session):
            return
    async with store.begin() as session:
        await resume_funded(session, catalog, lease_seconds=settings.lease_seconds)
