"""Publishing: a trained job succeeds once an engine has its adapter and has answered through it."""

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from app.catalog.names import adapter_id, own_name
from app.catalog.resolve import AdapterRef, choose_gpu
from app.catalog.spec import Catalog, GpuChoice
from app.devices.inventory import as_choices
from app.engines.own_model import target_of
from app.engines.pool import EnginePool
from app.engines.trial import try_everywhere
from app.errors import APIError
from app.files.service import describe, save_bytes
from app.files.storage import Storage
from app.ids import new_id
from app.jobs import queue
from app.jobs.metrics import read_metrics
from app.jobs.queue import Lease, LeaseLost
from app.jobs.states import Stage
from app.settings import Settings
from app.store.session import Store
from app.store.tables import File, Job

log = structlog.get_logger()

METRICS = (
    "step",
    "epoch",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "learning_rate",
    "tokens_per_second",
)


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
        results = await self._save_metrics(job)
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
        """Engines may be out of order for a while: try again before the job is given up."""
        log.warning("publishing failed", job=job.id, attempt=job.attempts, error=error.message)
        async with self._store.begin() as session:
            if job.attempts < self._settings.max_attempts:
                await queue.retry_later(session, lease, after_seconds=2.0**job.attempts)
            else:
                message = f"The model was trained, but could not be served: {error.message}"
                await queue.fail(session, lease, code="publish_failed", message=message)

    async def _save_metrics(self, job: Job) -> File:
        """The metrics as a CSV file; the row is yet to be added."""
        text = await anyio.to_thread.run_sync(metrics_csv, self._storage.run(job.id) / "metrics.jsonl")
        file_id, saved = await save_bytes(self._storage, _once(text), max_bytes=self._settings.max_file_bytes)
        name = f"{job.id}-metrics.csv"
        return await describe(self._storage, job.org_id, file_id, saved, filename=name, purpose="fine-tune-results")


def metrics_csv(path: Path) -> bytes:
    """A line for each step, the last told of it; blanks where a step was not validated."""
    out = io.StringIO()
    writer = csv.DictWriter(out, METRICS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_by_step(path))
    return out.getvalue().encode()


def _by_step(path: Path) -> list[dict[str, Any]]:
    steps: dict[int, dict[str, Any]] = {}
    for record in read_metrics(path)[0]:
        if record["kind"] in ("step", "validation"):
            steps.setdefault(record["step"], {}).update(record)
    return [steps[step] for step in sorted(steps)]


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
