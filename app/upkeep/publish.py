"""Publishing: a trained job succeeds once an engine has its adapter and has answered through it."""

import anyio
import structlog

from app.catalog.names import adapter_id, own_name
from app.catalog.resolve import AdapterRef, choose_gpu
from app.catalog.spec import Catalog, GpuChoice
from app.devices.inventory import as_choices
from app.engines.own_model import target_of
from app.engines.pool import EnginePool
from app.engines.trial import Unservable, try_everywhere
from app.errors import APIError
from app.files.storage import Storage
from app.ids import new_id
from app.jobs import queue
from app.jobs.queue import Lease, LeaseLost
from app.jobs.states import Stage
from app.settings import Settings
from app.store.session import Store
from app.store.tables import Job
from app.upkeep.results import save_results, save_results_of_ended

log = structlog.get_logger()


class Publisher:
    """Claims trained jobs and makes them servable; any number of gateways may do it beside each other."""

    def __init__(self, settings: Settings, store: Store, storage: Storage, catalog: Catalog, pool: EnginePool) -> None:
        self._settings = settings
        self._store = store
        self._storage = storage
        self._catalog = catalog
        self._pool = pool
        self._holder = new_id("gateway")

    async def step(self) -> bool:
        """Publish one job; False when none waits."""
        async with self._store.begin() as session:
            claimed = await queue.claim(
                session, self._holder, Stage.PUBLISH, lease_seconds=self._settings.lease_seconds
            )
        if claimed is None:
            return False
        job, lease = claimed
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._hold, lease)
                await self._publish(job, lease)
                group.cancel_scope.cancel()
        except* LeaseLost:
            log.info("job is over or taken over", job=job.id)
        return True

    async def save_results(self) -> None:
        """Of jobs that have nothing to publish."""
        await save_results_of_ended(self._settings, self._store, self._storage)

    async def _hold(self, lease: Lease) -> None:
        while True:
            await anyio.sleep(self._settings.lease_seconds / 3)
            async with self._store.begin() as session:
                await queue.heartbeat(session, lease, lease_seconds=self._settings.lease_seconds)

    async def _publish(self, job: Job, lease: Lease) -> None:
        try:
            await self._try_adapter(job)
        except APIError as error:
            await self._fail(job, lease, error)
            return
        results = await save_results(self._settings, self._storage, job)
        async with self._store.begin() as session:
            await queue.check_lease(session, lease)
            session.add(results)
            await queue.succeed(session, lease, self._catalog, result_files=[results.id])
        log.info("job succeeded", job=job.id)

    async def _try_adapter(self, job: Job) -> None:
        """Have it loaded by the engines of its base, and answer."""
        spec = self._catalog.find(job.base_model)
        if spec is None:
            raise APIError(f"{job.base_model} is no longer in the catalog.")
        adapter = AdapterRef(adapter_id(job.id), job.id, "adapter", own_name(job))
        # Of the type that it was trained on, as many as serving takes.
        gpu = choose_gpu(spec, GpuChoice.parse(job.gpu).type, as_choices(self._pool.devices), fallback=True)
        await try_everywhere(self._pool, target_of(self._storage, spec, adapter, gpu), org_id=job.org_id)

    async def _fail(self, job: Job, lease: Lease, error: APIError) -> None:
        """Engines may be out of order for a while: try again before the job is given up, unless it is the adapter."""
        log.warning("publishing failed", job=job.id, attempt=job.attempts, error=error.message)
        async with self._store.begin() as session:
            if isinstance(error, Unservable):
                assert error.code
                await queue.fail(session, lease, code=error.code, message=error.message)
            elif job.attempts < self._settings.max_attempts:
                await queue.retry_later(session, lease, after_seconds=2.0**job.attempts)
            else:
                message = f"The model was trained, but could not be served: {error.message}"
                await queue.fail(session, lease, code="publish_failed", message=message)
