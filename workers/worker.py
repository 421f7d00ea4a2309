"""The worker: claims jobs that its devices can run, one at a time, until it is told to stop."""

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalog.load import load_catalog
from app.catalog.spec import Catalog, GpuChoice
from app.devices import leases, wishes
from app.devices.inventory import Device, Use, as_choices, find_devices, for_training
from app.files.storage import Storage
from app.ids import new_id
from app.jobs import living_workers, queue
from app.jobs.funding import fund
from app.jobs.queue import Lease, LeaseLost
from app.jobs.states import Stage
from app.jobs.waiting import list_next, waiting_ids
from app.logs import configure_logging
from app.settings import Settings
from app.store.migrate import migrate
from app.store.session import Store
from app.store.tables import Job
from workers.run import Run

log = structlog.get_logger()

JOB_PREFIX = "ftjob-"  # so begin the ids of jobs, who hold wishes as gateways do
TURN_POLLS = 3


class NoDevices(Exception):
    """There is a job, but its devices are in use: roll the claim back."""


async def work(settings: Settings) -> None:
    """Until SIGTERM or SIGINT: a running job then writes a checkpoint and goes back into the queue."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    catalog = load_catalog(settings.catalog)
    storage, store = Storage(settings.data_dir), Store(settings.store_url)
    devices = for_training(find_devices(settings, catalog))
    await migrate(store)
    log.info("worker ready", devices=[str(choice) for choice in as_choices(devices)])
    async with shown(store, devices, seconds=settings.lease_seconds):
        while not stop.is_set():
            has_worked = await _work_on_next(settings, store, storage, catalog, devices, stop)
            # After a job, those come first who waited for its devices: they look less often than we do.
            await _pause(stop, settings.poll_seconds * (TURN_POLLS if has_worked else 1))
    await store.close()


@asynccontextmanager
async def shown(store: Store, devices: Sequence[Device], *, seconds: float) -> AsyncIterator[None]:
    """Others know meanwhile that we live, and what we can run."""
    worker_id = new_id("worker")
    showing = asyncio.create_task(_keep_showing(store, worker_id, devices, seconds))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        with suppress(DBAPIError, OSError):  # then the row runs out
            async with store.begin() as session:
                await living_workers.leave(session, worker_id)


async def _keep_showing(store: Store, worker_id: str, devices: Sequence[Device], seconds: float) -> None:
    capacities = living_workers.capacities_of(devices)
    while True:
        try:
            async with store.begin() as session:
                await living_workers.show(session, worker_id, socket.gethostname(), capacities, seconds=seconds)
        except (DBAPIError, OSError) as error:
            log.warning("cannot say that we live", error=repr(error)[:300])
        await asyncio.sleep(seconds / 3)


async def _work_on_next(
    settings: Settings, store: Store, storage: Storage, catalog: Catalog, devices: list[Device], stop: asyncio.Event
) -> bool:
    """False when there was nothing to do, or it cannot be done now: the job's lease runs out, and it comes again."""
    try:
        claimed = await claim_next(settings, store, catalog, devices)
        if claimed is None:
            return False
        job, lease, held = claimed
        if job.attempts > settings.max_attempts:
            message = f"The job was begun {job.attempts - 1} times, and its worker died each time."
            await _give_up(store, lease, code="too_many_attempts", message=message)
        elif catalog.find(job.base_model) is None:
            message = f"{job.base_model} is no longer in the catalog."
            await _give_up(store, lease, code="model_not_found", message=message)
        else:
            await Run(settings, store, storage, job, lease, held).finish(catalog, stop)
    except LeaseLost as error:
        log.info("job is over or taken over", job=str(error))
    except (DBAPIError, OSError) as error:
        log.warning("the store or the disk cannot be used; trying again", error=repr(error)[:300])
        return False
    return True


async def claim_next(
    settings: Settings, store: Store, catalog: Catalog, devices: list[Device]
) -> tuple[Job, Lease, list[Device]] | None:
    """The next job that our devices can run and that finds them free, and these devices: both, or neither.

    One without funds is paused.
    """
    holder, seconds = f"{socket.gethostname()}:{os.getpid()}", settings.lease_seconds
    runnable = living_workers.can_run(living_workers.capacities_of(devices))
    try:
        async with store.begin() as session:
            waiting = await list_next(session, runnable)
            gpus, wished = share_out(waiting, devices, await leases.held(session))
            among = runnable & Job.gpu.in_(gpus)
            claimed = (
                await queue.claim(session, holder, Stage.TRAIN, lease_seconds=seconds, among=among) if gpus else None
            )
            if claimed is None:
                await _make_wishes(session, wished, seconds=seconds)
                return None
            job, lease = claimed
            if await leases.is_held_for(session, f"{job.id}/"):  # the recipe of an earlier claim is still ending
                raise NoDevices
            held = await leases.acquire(session, devices, GpuChoice.parse(job.gpu), lease.holder, seconds=seconds)
            if not held:
                raise NoDevices
            await wishes.withdraw(session, socket.gethostname(), job.id)
            if not await fund(session, catalog, job, lease_seconds=seconds):
                await leases.release(session, lease.holder)
                return None
            return job, lease, held
    except NoDevices:
        return None


def share_out(
    waiting: Sequence[tuple[str, GpuChoice]], devices: Sequence[Device], held: Collection[str]
) -> tuple[list[str], dict[str, GpuChoice]]:
    """What may be claimed now, and the jobs that devices are wished for; `waiting` are job ids, the next first.

    The next job of each GPU type comes first, also where a later one would do with fewer devices. What engines
    have no part in need not be wished for.
    """
    total, is_free = Counter(d.type for d in devices), [d for d in devices if d.name not in held]
    free, own = Counter(d.type for d in is_free), Counter(d.type for d in is_free if d.use is Use.TRAINING)
    claimable: list[str] = []
    wished: dict[str, GpuChoice] = {}
    for job_id, gpu in waiting:
        if gpu.count > total[gpu.type] or gpu.type in {other.type for other in wished.values()}:
            continue
        if gpu.count <= free[gpu.type]:
            claimable.append(str(gpu))
        else:
            wished[job_id] = GpuChoice(gpu.type, gpu.count - own[gpu.type])
    return claimable, wished


async def _make_wishes(session: AsyncSession, wished: Mapping[str, GpuChoice], *, seconds: float) -> None:
    """Those of other workers of this host stay, as long as their jobs wait."""
    host = socket.gethostname()
    await wishes.withdraw_others(session, host, waiting_ids(Stage.TRAIN), prefix=JOB_PREFIX)
    for job_id, gpu in wished.items():
        await wishes.wish(session, host, job_id, gpu, seconds=seconds)


async def _give_up(store: Store, lease: Lease, *, code: str, message: str) -> None:
    async with store.begin() as session:
        await queue.fail(session, lease, code=code, message=message)
        await leases.release(session, lease.holder)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


def main() -> None:
    settings = Settings()
    configure_logging(settings.log_level)
    asyncio.run(work(settings))


if __name__ == "__main__":
    main()
